//! Chat networks: faces for people who only talk.

pub mod telegram;
