//! The mind: plays one turn.

pub mod guard;
pub mod turn;
