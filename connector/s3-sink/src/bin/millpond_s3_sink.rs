//! The same program under the name of the package's first target, the library: from a source tree,
//! `cdk test` and `cdk deploy start` run the binary of that name and no other (cdk 0.50).

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond_connector_host::main(millpond_s3_sink::config::S3Sink)
}
