//! Where things are in this kernel's structs.
//!
//! Rust has no CO-RE relocations. Each member named here becomes a constant in `.rodata` whose
//! symbol says what it is; the runtime reads the symbols of the object, looks them up in the
//! kernel's BTF, and freezes the values before the verifier sees the program. A new member is one
//! line here and nothing elsewhere.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use core::ffi::c_void;

use crate::events::wire::ABSENT;

/// A pointer into kernel memory, only good for reading through a helper.
pub type Pointer = *const c_void;

/// A number that the runtime takes from the kernel's BTF.
#[repr(transparent)]
pub struct Constant(Global<u32>);

impl Constant {
    /// Known when the object is loaded.
    #[expect(clippy::new_without_default, reason = "made in constants only")]
    #[must_use]
    pub const fn new() -> Self {
        Self(Global::new(ABSENT))
    }

    /// The value, or `None` where this kernel does not have it.
    #[inline(always)]
    pub fn get(&self) -> Option<usize> {
        let value = self.0.load();
        (value != ABSENT).then_some(value as usize)
    }
}

/// Offset of a member of a kernel struct, in bytes.
#[repr(transparent)]
pub struct Offset(Constant);

impl Offset {
    /// Known when the object is loaded.
    #[expect(clippy::new_without_default, reason = "made in constants only")]
    #[must_use]
    pub const fn new() -> Self {
        Self(Constant::new())
    }

    /// Whether this kernel has the member.
    #[inline(always)]
    pub fn exists(&self) -> bool {
        self.0.get().is_some()
    }

    /// Address of the member in the struct at `base`.
    #[inline(always)]
    pub fn of(&self, base: Pointer) -> Option<Pointer> {
        let offset = self.0.get()?;
        Some(base.wrapping_byte_add(offset))
    }

    /// Address of the struct that has its member at `member`.
    #[inline(always)]
    pub fn container_of(&self, member: Pointer) -> Option<Pointer> {
        let offset = self.0.get()?;
        Some(member.wrapping_byte_sub(offset))
    }

    /// Reads the member of the struct at `base`; `None` where there is no such member or no memory.
    #[inline(always)]
    pub fn read<T>(&self, base: Pointer) -> Option<T> {
        let address = self.of(base)?;
        // SAFETY: the helper checks the address, and T is what the kernel has there.
        unsafe { bpf_probe_read_kernel(address.cast::<T>()) }.ok()
    }
}

/// Reads a member of a struct that the verifier knows by type: without a helper.
///
/// # Safety
/// `base` is such a pointer, and T is what the kernel has there.
#[inline(always)]
pub unsafe fn load<T: Copy>(member: &Offset, base: Pointer) -> Option<T> {
    let address = member.of(base)?;
    // SAFETY: the caller promises; the verifier checks type and offset.
    Some(unsafe { address.cast::<T>().read_volatile() })
}

/// Reads a `T` at `address`.
#[inline(always)]
pub fn read<T>(address: Pointer) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address.cast::<T>()) }.ok()
}

/// `STRUCT { MEMBER, ... }`: a module for each struct, an [`Offset`] for each member. Members of
/// anonymous structs and unions inside count as the struct's own.
macro_rules! offsets {
    ($($structure:ident { $($member:ident),+ $(,)? })+) => { $(
        #[doc = concat!("Members of `struct ", stringify!($structure), "`.")]
        #[allow(non_upper_case_globals, reason = "names are the kernel's")]
        pub mod $structure {
            $(
                #[doc = concat!("Offset of `", stringify!($member), "`.")]
                #[unsafe(export_name = concat!("OFFSET__", stringify!($structure), "__", stringify!($member)))]
                pub static $member: super::Offset = super::Offset::new();
            )+
        }
    )+ };
}

offsets! {
    cgroup { root, kn }
    cgroup_root { hierarchy_id }
    cgroup_subsys_state { cgroup }
    cred { uid, gid }
    css_set { dfl_cgrp, subsys }
    dentry { d_hash }
    fdtable { fd, max_fds }
    file { f_inode, f_path, private_data }
    filename { name }
    files_struct { fdt }
    fs_struct { pwd, root }
    inet_connection_sock { icsk_ulp_data }
    inet_sock { inet_sport }
    inode { i_mode, i_sb }
    io_accept { file_slot, iou_flags }
    io_cqe { flags, res, user_data }
    io_kiocb { cqe, ctx, file, flags, opcode }
    io_listen { backlog }
    io_open { dfd, file_slot, filename, how }
    io_rename { flags, new_dfd, newpath, old_dfd, oldpath }
    io_unlink { dfd, filename, flags }
    io_uring_cqe { res, user_data }
    kernel_siginfo { si_code }
    kernfs_node { __parent, id, parent }
    linux_binprm { file, filename, interp }
    mm_rss_stat { count }
    mm_struct { arg_start, arg_end, exe_file, pgtables_bytes, rss_stat, total_vm }
    mount { mnt, mnt_id, mnt_mountpoint, mnt_parent }
    mptcp_sock { first }
    mptcp_subflow_context { conn }
    open_how { flags, mode }
    percpu_counter { count }
    pid { level, numbers }
    signal_struct { pids, live, flags, group_exit_code, oom_score_adj }
    sock { sk_err, sk_protocol }
    sock_common { skc_daddr, skc_dport, skc_family, skc_flags, skc_num, skc_rcv_saddr, skc_state, skc_v6_daddr, skc_v6_rcv_saddr }
    socket { sk }
    super_block { s_dev }
    task_struct {
        __state, cgroups, comm, cpu, exit_code, files, fs, group_leader, mm, nvcsw, pid, real_cred,
        real_parent, signal, start_boottime, start_time, state, tgid, thread_info, thread_pid,
    }
    tcp_sock { bytes_acked, bytes_received, is_mptcp, snd_una, write_seq }
    thread_info { cpu, status }
    unix_address { len, name }
    unix_sock { addr, peer }
    upid { nr }
    vfsmount { mnt_root }
}

/// Sizes of structs, in bytes.
#[allow(non_upper_case_globals, reason = "names are the kernel's")]
pub mod size {
    /// `struct percpu_counter`.
    #[unsafe(export_name = "SIZE__percpu_counter")]
    pub static percpu_counter: super::Constant = super::Constant::new();
    /// `struct upid`.
    #[unsafe(export_name = "SIZE__upid")]
    pub static upid: super::Constant = super::Constant::new();
}

/// Values of enumerators.
#[allow(non_upper_case_globals, reason = "names are the kernel's")]
pub mod value {
    /// Index of the memory controller in `css_set.subsys`.
    #[unsafe(export_name = "VALUE__cgroup_subsys_id__memory_cgrp_id")]
    pub static memory_cgrp_id: super::Constant = super::Constant::new();
    /// Index of the thread group in `signal_struct.pids`.
    #[unsafe(export_name = "VALUE__pid_type__PIDTYPE_TGID")]
    pub static PIDTYPE_TGID: super::Constant = super::Constant::new();
}
