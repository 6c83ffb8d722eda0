//! The log of a conversation, its repair, and what of it fits into a window.
