//! `nexaas-runner`: everything is in the library.

fn main() -> std::process::ExitCode {
    nexaas_runner::run::run(std::env::args_os())
}
