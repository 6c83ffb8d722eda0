//! The binary door.

use omni::kernel::Interpreter;

/// A call begins on one thread and ends on another, and so does what it has allocated: the
/// system's allocator makes the two wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    omni::kernel::interpreter::settle();
    let code = omni::cli::run(std::env::args_os().collect(), Interpreter::Embedded);
    omni::kernel::interpreter::leave(code)
}
