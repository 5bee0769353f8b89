//! Whether a connector's process still lives.
//!
//! `cdk deploy list` takes any process of that number for the connector: one that ended and was
//! not reaped, or another program that got the number since. This looks closer.

use std::path::Path;

/// What the system says of a process number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// No such process, one that has ended, or another program's.
    Gone,
    /// This system does not say.
    Unknown,
}

/// Looks a connector's process up. Reads two small files.
#[must_use]
pub fn life(pid: u32) -> Life {
    let proc = Path::new("/proc");
    if !proc.join("self").exists() {
        return Life::Unknown;
    }
    let dir = proc.join(pid.to_string());
    let Ok(stat) = std::fs::read_to_string(dir.join("stat")) else {
        return Life::Gone;
    };
    judge(
        &stat,
        &std::fs::read(dir.join("cmdline")).unwrap_or_default(),
    )
}

/// Processes started with `--config <file>`; none where the system does not say.
#[must_use]
pub fn of_config(file: &Path) -> Vec<u32> {
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let dir = Path::new("/proc").join(pid.to_string());
            let cmdline = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            takes_config(&cmdline, &file) && life(*pid) == Life::Running
        })
        .collect()
}

/// `--config <file>` among the arguments, of any program but `cdk deploy` itself.
fn takes_config(cmdline: &[u8], file: &Path) -> bool {
    let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).skip(1).collect();
    let file = file.as_os_str().as_encoded_bytes();
    !arguments.contains(&&b"deploy"[..])
        && arguments
            .windows(2)
            .any(|pair| pair == [&b"--config"[..], file])
}

/// Decides from `/proc/<pid>/stat` and `/proc/<pid>/cmdline` (see proc(5)).
#[must_use]
pub fn judge(stat: &str, cmdline: &[u8]) -> Life {
    // The name in brackets may hold anything; the state follows its last bracket.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    let is_connector = cmdline
        .split(|byte| *byte == 0)
        .any(|argument| argument == b"--config");
    match state {
        None | Some('Z' | 'X') => Life::Gone,
        Some(_) if is_connector => Life::Running,
        Some(_) => Life::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_and_other_programs_are_gone() {
        let connector: &[u8] = b"/tmp/x/millpond-dynamodb-sink\0--config\0/a.yaml\0";
        for (stat, cmdline, expected) in [
            ("7 (sink) S 1 7", connector, Life::Running),
            ("7 (a) Z (b) R 1 7", connector, Life::Running),
            ("7 (sink) Z 1 7", connector, Life::Gone),
            ("7 (sink) Z 1 7", &b""[..], Life::Gone),
            ("7 (bash) S 1 7", &b"bash\0-l\0"[..], Life::Gone),
            ("", connector, Life::Gone),
        ] {
            assert_eq!(judge(stat, cmdline), expected, "{stat}");
        }
    }

    #[test]
    fn a_process_is_found_by_its_file() {
        let file = Path::new("/d/a.yaml");
        for (cmdline, expected) in [
            (&b"sink\0--config\0/d/a.yaml\0"[..], true),
            (b"sink\0--config\0/d/a.yaml\0--secrets\0s\0", true),
            (b"sh\0sink\0--config\0/d/a.yaml\0", true),
            (b"sink\0--config\0/d/b.yaml\0", false),
            (b"cdk\0deploy\0start\0--config\0/d/a.yaml\0", false),
            (b"", false),
        ] {
            assert_eq!(takes_config(cmdline, file), expected);
        }
    }

    #[test]
    fn this_process_is_no_connector() {
        assert_ne!(life(std::process::id()), Life::Running);
    }
}
