//! Compiles the wire format without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["nexaas/runner/v1/runner.proto"], ["proto"])?;
    // A call that a server does not know yet answers UNIMPLEMENTED, so that the wire can grow before both sides do.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;
    Ok(())
}
