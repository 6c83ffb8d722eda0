//! Settings: layers, errors with their line, what a project may not say, the reference page.
