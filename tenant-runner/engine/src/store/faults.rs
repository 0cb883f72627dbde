//! Where a simulation may end the process: at each commit, before or after it reached the disk.

/// A moment in the writer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    BeforeCommit,
    /// On disk, but nobody was told.
    AfterCommit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The writer ends at once and answers nobody; every later write is refused.
    Crash,
}

/// Decides what goes wrong.
pub trait Faults: Send + Sync + std::fmt::Debug {
    fn at(&self, point: Point) -> Fault;
}
