//! The map of the tests: one program, one file per subject.

// Models over HTTP, retries and fallback, detection, scripts.
mod llm;
// The model that is none.
mod offline;
mod support;
