//! The map of the tests: one program, one file per subject.

mod llm;
mod offline;
mod support;
