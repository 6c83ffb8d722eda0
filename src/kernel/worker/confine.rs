//! What a worker is kept from, by the Linux kernel: files outside its own folders (Landlock),
//! the network, other processes and the ways around both (seccomp), more memory than it may have
//! (resource limits).
//!
//! The rules are inherited by everything the worker starts, and cannot be taken back.

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::wire::Cage;

/// Files that programs of every kind read at their start; none holds a secret.
const SYSTEM: [&str; 23] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/etc/timezone",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/self",
];
/// The interface of Landlock that we ask for; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;
/// Open files a worker may have.
const FILES: u64 = 1024;
/// Processes its user may have while it starts some. Not kept for root.
const PROCESSES: u64 = 512;

/// How well this machine can confine a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// In every way.
    Full,
    /// Files are kept from it, but it may send signals to processes of the same user.
    Signals,
    /// The kernel has no Landlock, or it is switched off: it reads and writes what its user may.
    Files,
}

impl Strength {
    /// What the kernel offers, without confining anybody.
    pub fn of_this_machine() -> Self {
        // SAFETY: asks for the version; takes no structure.
        let version = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32)
        };
        match version {
            6.. => Self::Full,
            1.. => Self::Signals,
            _ => Self::Files,
        }
    }
}

/// Puts this process, which has one thread, into its cage.
pub(super) fn confine(cage: &Cage) -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, FILES)?;
    limit(libc::RLIMIT_DATA, cage.memory)?;
    limit(libc::RLIMIT_NPROC, PROCESSES)?;
    keep_files(cage).map_err(|error| io::Error::other(format!("Landlock: {error}")))?;
    let filters = filters(cage).map_err(|error| io::Error::other(format!("seccomp: {error}")))?;
    for filter in &filters {
        seccompiler::apply_filter(filter).map_err(|error| io::Error::other(format!("seccomp: {error}")))?;
    }
    Ok(())
}

/// Lowers a limit; one that is lower already stays.
fn limit(what: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls on a structure of our own.
    unsafe {
        if libc::getrlimit(what, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_max = limit.rlim_max.min(most);
        limit.rlim_cur = limit.rlim_cur.min(limit.rlim_max);
        if libc::setrlimit(what, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn keep_files(cage: &Cage) -> Result<RulesetStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(LANDLOCK);
    let read = AccessFs::from_read(LANDLOCK);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(&cage.read, read))?
        .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&cage.write, all))?
        .restrict_self()?;
    Ok(status.ruleset)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Ways out of a process that no tool needs: into other processes, into the kernel, around the
/// other rules (`io_uring` opens sockets that no filter sees).
const FORBIDDEN: [libc::c_long; 27] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
];

fn filters(cage: &Cage) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut refused: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let family = |op, family: libc::c_int| condition(0, op, family as u64);
    let sockets = match cage.network {
        // Those of this machine lead to its services: an agent that holds keys, a container engine.
        true => vec![SeccompRule::new(vec![
            family(Op::Ne, libc::AF_INET)?,
            family(Op::Ne, libc::AF_INET6)?,
            family(Op::Ne, libc::AF_NETLINK)?,
        ])?],
        false => Vec::new(),
    };
    refused.insert(libc::SYS_socket, sockets);
    let mut absent = Rules::new();
    if !cage.processes {
        // A thread is no process. What `clone3` is asked for cannot be seen, so there is none:
        // the C library falls back to `clone`.
        let thread = libc::CLONE_THREAD as u64;
        refused
            .insert(libc::SYS_clone, vec![SeccompRule::new(vec![condition(0, Op::MaskedEq(thread), 0)?])?]);
        #[cfg(target_arch = "x86_64")]
        for call in [libc::SYS_fork, libc::SYS_vfork] {
            refused.insert(call, Vec::new());
        }
        absent.insert(libc::SYS_clone3, Vec::new());
    }
    let program = |rules: Rules, error: libc::c_int| {
        let refuse = SeccompAction::Errno(error as u32);
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
    };
    let mut programs = vec![program(refused, libc::EPERM)?];
    if !absent.is_empty() {
        programs.push(program(absent, libc::ENOSYS)?);
    }
    Ok(programs)
}

fn condition(argument: u8, op: Op, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Length::Dword, op, value)
}
