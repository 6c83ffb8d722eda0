//! The map of the tests: one program, one file per subject.
mod tool;
mod turn;
