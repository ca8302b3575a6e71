//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = [
        "proto/sortie/v1/identity.proto",
        "proto/sortie/v1/session.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Its queues hold room for 32 of them; the large ones are rare.
        .boxed("sortie.v1.HubControl.message.welcome")
        .boxed("sortie.v1.HubControl.message.dispatch")
        .codec_path("crate::wire::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
