//! The binary from outside: exit codes, standard output, standard error, files.

mod sample;
