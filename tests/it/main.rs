//! The map of the tests: one program, one file per subject.

mod skill;
