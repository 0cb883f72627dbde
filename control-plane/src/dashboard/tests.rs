//! A dashboard against a runner that is played in this process.
