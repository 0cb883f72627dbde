//! From the writer to the workers, without a detour over the table: a job that is due while a worker has room is held by this
//! process from the moment it is stored.
//!
//! `room` is how many more jobs the workers want. It is taken before a job is given and comes back when one has ended; without
//! workers it is 0 and every job waits in the table.

use super::Claimed;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

#[derive(Debug)]
pub(crate) struct Handoff {
    room: AtomicI64,
    given: Mutex<VecDeque<Claimed>>,
    /// One permit per job in `given`.
    arrived: Semaphore,
    /// There is room for what waits in the table.
    hungry: Notify,
    /// More was given than there are workers who wait for it.
    piled: Notify,
    /// Something that is due waits in the table, as far as is known.
    backlog: AtomicBool,
    /// A look at the table was put off for want of room: what waits there, or will be due, has not been seen.
    put_off: AtomicBool,
    /// Jobs that were begun, ever.
    begun: AtomicU64,
}

impl Default for Handoff {
    fn default() -> Self {
        Self {
            room: AtomicI64::new(0),
            given: Mutex::default(),
            arrived: Semaphore::new(0),
            hungry: Notify::new(),
            piled: Notify::new(),
            backlog: AtomicBool::new(true),
            put_off: AtomicBool::new(false),
            begun: AtomicU64::new(0),
        }
    }
}

impl Handoff {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Claimed>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn room(&self) -> i64 {
        self.room.load(Ordering::Acquire)
    }

    pub fn change_room(&self, by: i64) {
        self.room.fetch_add(by, Ordering::SeqCst);
    }

    /// Takes room for one job, if there is any.
    pub fn take(&self) -> bool {
        self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, |room| (room > 0).then_some(room - 1)).is_ok()
    }

    pub fn give(&self, jobs: impl ExactSizeIterator<Item = Claimed>) {
        let count = jobs.len();
        self.lock().extend(jobs);
        self.arrived.add_permits(count);
        if self.arrived.available_permits() > 0 {
            self.piled.notify_one();
        }
    }

    /// The next job; pending while there is none.
    pub async fn next(&self) -> Option<Claimed> {
        self.arrived.acquire().await.ok()?.forget();
        let job = self.lock().pop_front();
        self.begun.fetch_add(1, Ordering::Relaxed);
        job
    }

    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Room for a look at the table. Without any the look is put off, and whoever makes room asks for it.
    pub fn room_to_look(&self) -> usize {
        self.put_off.store(true, Ordering::SeqCst);
        // Read after it was noted: room that comes free meanwhile is seen here or by whoever makes it.
        let room = usize::try_from(self.room.load(Ordering::SeqCst)).unwrap_or(0);
        if room > 0 {
            self.put_off.store(false, Ordering::SeqCst);
        }
        room
    }

    /// Whether room is worth telling of: the table holds, or may hold, something for it.
    pub fn is_wanted(&self) -> bool {
        self.backlog.load(Ordering::Acquire) || self.put_off.load(Ordering::SeqCst)
    }

    pub fn set_backlog(&self, there: bool) {
        self.backlog.store(there, Ordering::Release);
    }

    /// Jobs that were given and not yet begun.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Takes everything back that was not yet begun.
    pub fn take_back(&self) -> Vec<Claimed> {
        let mut given = self.lock();
        // Who has a permit already finds its job; the others' permits go with theirs.
        let free = self.arrived.forget_permits(given.len());
        let at = given.len() - free;
        given.split_off(at).into()
    }

    /// Gives nothing more until room is made again.
    pub fn close(&self) {
        self.room.store(0, Ordering::Release);
    }

    /// Asks for more from the table.
    pub fn ask(&self) {
        self.hungry.notify_one();
    }

    /// Waits until more was given than there are workers who wait for it.
    pub async fn piled(&self) {
        self.piled.notified().await;
    }

    /// Waits until somebody asks for more.
    pub async fn asked(&self) {
        self.hungry.notified().await;
    }
}
