//! The pages of a client's dashboard: signing in, the pages that `workspace.yaml` describes, and the fixed pages under
//! "Workspace" that show what is there even when nothing is described yet.

pub mod account;
pub mod grid;
pub mod workspace;

pub use account::{LoginPage, RegisterPage};
pub use grid::{Grid, GridPage, ProblemsBanner};
pub use workspace::{
    AgentPage, AgentsPage, EventRow, EventsPage, EventsTable, JobDetail, JobPage, ProblemRow, ProblemsPage,
    RegistriesPage, RegistryPage, RegistryRow, SkillPage, SkillRow, SkillsPage,
};
