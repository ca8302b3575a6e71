mod bench;
mod eks;
mod failures;
mod login;
mod s3;
mod secrets_manager;
mod wire;
