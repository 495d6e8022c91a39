//! What can happen to a node's directory and machine while it is down: lost files, power cuts, restarts.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::node::TestServer;

/// Where the kernel says which start of the machine this is.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How a directory loses its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    /// A new disk.
    Everything,
    /// The log is gone, who the node was is not.
    Log,
    /// The log is there, who wrote it is not.
    Identity,
    /// A power cut: the log ends where its last sync did. Needs `--wal-sync-mark yes`.
    Unsynced,
}

/// Does to the directory of a node that does not run what `damage` says.
#[track_caller]
pub(crate) fn damage(node: &TestServer, damage: Damage) {
    assert!(!node.is_running(), "its files are in use");
    match damage {
        // A node that was killed at once may not have made it yet.
        Damage::Everything => match fs::remove_dir_all(node.dir()) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            Ok(()) | Err(_) => {}
        },
        Damage::Log => fs::remove_dir_all(node.wal_dir()).unwrap(),
        Damage::Identity => fs::remove_file(node.dir().join("identity")).unwrap(),
        Damage::Unsynced => {
            let cut = kvorum::wal::cut_to_last_sync(&node.wal_dir()).unwrap();
            eprintln!("the node on port {} loses {cut} bytes of unsynced log", node.port());
        }
    }
}

/// True when this process may give another a boot id of its own: it needs a mount namespace, so the rights of root.
pub(crate) fn can_act_boots() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let done = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "mount", "--bind", BOOT_ID, BOOT_ID])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    })
}

/// Words of the program to run before another so that it reads its boot id from `file`; the process stays the same one.
pub(crate) fn boot_prefix(file: &Path) -> Vec<String> {
    let file = file.to_str().expect("UTF-8");
    let script = format!("mount --bind '{file}' {BOOT_ID} && exec \"$0\" \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", &script]
        .map(str::to_owned)
        .to_vec()
}
