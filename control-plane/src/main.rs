//! The program `nexaas`.

fn main() -> std::process::ExitCode {
    nexaas::cli::main()
}
