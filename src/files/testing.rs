//! What a power loss leaves of a real folder: the names that were in it when it was last synced.
//!
//! Every sync of a folder below the root is noted. One that succeeds writes down what changed since
//! the sync before; one that fails *forgets* that, as the kernel may: a later one does not bring it
//! to the medium, unless the name was given anew. Files have the bytes that they had at that sync.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::folders::known;

static MEDIA: Mutex<Vec<Arc<Mutex<World>>>> = Mutex::new(Vec::new());

/// By what a file or folder is told from another that has its name later.
type Identity = (u64, Option<SystemTime>);

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Folder,
    File(Vec<u8>),
}

#[derive(Default)]
struct World {
    root: PathBuf,
    medium: BTreeMap<PathBuf, BTreeMap<OsString, Kept>>,
    /// What stood in a folder when it was last synced, or that was tried.
    seen: BTreeMap<PathBuf, BTreeMap<OsString, Identity>>,
    syncs: u64,
    fails: Vec<u64>,
}

/// A folder that is watched until this is dropped.
pub(crate) struct Medium(Arc<Mutex<World>>);

impl Medium {
    /// Watches the folder, whose own name is durable.
    pub(crate) fn of(root: &Path) -> Medium {
        let world = World { root: root.to_owned(), ..World::default() };
        let world = Arc::new(Mutex::new(world));
        MEDIA.lock().unwrap().push(world.clone());
        Medium(world)
    }

    /// The nth sync from here on fails, counted from 1.
    pub(crate) fn fail(&self, nth: u64) {
        let mut world = self.0.lock().unwrap();
        let at = world.syncs + nth;
        world.fails.push(at);
    }

    /// Syncs so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// The process is gone, and what it knew with it.
    pub(crate) fn kill(&self) {
        let mut world = self.0.lock().unwrap();
        world.fails.clear();
        known(|known| known.retain(|folder| !folder.starts_with(&world.root)));
    }

    /// The power fails: only what is on the medium is there.
    pub(crate) fn lose_power(&self) {
        self.kill();
        let world = &mut *self.0.lock().unwrap();
        for entry in fs::read_dir(&world.root).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        let mut folders = vec![world.root.clone()];
        let mut medium = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            let names = world.medium.remove(&folder).unwrap_or_default();
            for (name, kept) in &names {
                let path = folder.join(name);
                match kept {
                    Kept::Folder => {
                        fs::create_dir(&path).unwrap();
                        folders.push(path);
                    }
                    Kept::File(bytes) => fs::write(path, bytes).unwrap(),
                }
            }
            medium.insert(folder, names);
        }
        world.seen = medium.keys().map(|folder| (folder.clone(), listed(folder))).collect();
        world.medium = medium;
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        MEDIA.lock().unwrap().retain(|world| !Arc::ptr_eq(world, &self.0));
    }
}

fn listed(folder: &Path) -> BTreeMap<OsString, Identity> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        (entry.file_name(), (found.ino(), found.created().ok()))
    });
    entries.collect()
}

/// Notes a sync, and says how it went.
pub(super) fn synced(folder: &Path, really: io::Result<()>) -> io::Result<()> {
    let watching = MEDIA.lock().unwrap().iter().find_map(|world| {
        let below = folder.starts_with(&world.lock().unwrap().root);
        below.then(|| world.clone())
    });
    let Some(world) = watching else { return really };
    let world = &mut *world.lock().unwrap();
    world.syncs += 1;
    let now = listed(folder);
    let before = world.seen.insert(folder.to_owned(), now.clone()).unwrap_or_default();
    if let Some(at) = world.fails.iter().position(|nth| *nth == world.syncs) {
        world.fails.remove(at);
        return Err(io::Error::other("injected: the sync failed"));
    }
    let medium = world.medium.entry(folder.to_owned()).or_default();
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        medium.remove(name);
    }
    for name in now.iter().filter(|(name, id)| before.get(*name) != Some(id)).map(|(name, _)| name)
    {
        let path = folder.join(name);
        let kept = match path.is_dir() {
            true => Kept::Folder,
            false => Kept::File(fs::read(&path).unwrap()),
        };
        medium.insert(name.clone(), kept);
    }
    really
}

/// One sync of a folder fails, whichever it is; `work` is tried until it succeeds, and what it made
/// must then be there after a power loss. Returns how many different syncs were tried.
fn survives(work: impl Fn(&Path) -> io::Result<()>, is_there: impl Fn(&Path) -> bool) -> u64 {
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let medium = Medium::of(dir.path());
        medium.fail(nth);
        if work(dir.path()).is_err() {
            work(dir.path()).unwrap();
        } else if medium.syncs() < nth {
            return nth - 1;
        }
        medium.lose_power();
        assert!(is_there(dir.path()), "lost after the failure of sync {nth}");
    }
    unreachable!()
}

#[test]
fn a_folder_is_there_after_a_power_loss_whichever_sync_failed() {
    let tried = survives(
        |root| super::make_folder(&root.join("a/b/c")),
        |root| root.join("a/b/c").is_dir(),
    );
    assert!(tried >= 3, "{tried}");
}

#[test]
fn a_folder_that_another_process_left_unsynced_is_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::of(dir.path());
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    super::make_folder(&dir.path().join("a/b")).unwrap();
    medium.lose_power();
    assert!(dir.path().join("a/b").is_dir());
}

/// Its sync failed once, and the kernel forgot the name: the next sync succeeds and proves nothing.
#[test]
fn a_folder_that_was_left_unsynced_survives_whichever_sync_fails() {
    let mut tried = 0;
    for left in ["a", "a/b", "a/b/c"] {
        tried += survives(
            |root| {
                // Only the first attempt finds what a dead process has left.
                if !root.join("tried").exists() {
                    fs::create_dir_all(root.join(left))?;
                    fs::write(root.join("tried"), "")?;
                }
                super::make_folder(&root.join("a/b/c"))
            },
            |root| root.join("a/b/c").is_dir(),
        );
    }
    assert!(tried >= 9, "{tried}");
}

/// What is in a folder was put there by someone to whom its name was durable.
#[test]
fn a_folder_that_holds_something_is_left_alone_whichever_sync_fails() {
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let medium = Medium::of(dir.path());
        let folder = dir.path().join("a/b");
        super::make_folder(&folder).unwrap();
        fs::write(folder.join("precious"), "it").unwrap();
        super::folders::sync_folder(&folder).unwrap();
        medium.kill();
        let before = medium.syncs();
        medium.fail(nth);
        if super::make_folder(&folder).is_err() {
            super::make_folder(&folder).unwrap();
        } else if medium.syncs() - before < nth {
            assert!(nth > 2, "{nth}");
            return;
        }
        medium.lose_power();
        assert_eq!(fs::read_to_string(folder.join("precious")).unwrap(), "it", "sync {nth}");
    }
}

#[test]
fn a_replaced_file_is_there_after_a_power_loss_whichever_sync_failed() {
    for bytes in ["one", "another"] {
        let tried = survives(
            |root| {
                let path = root.join("state/it.json");
                super::replace(&path, &root.join("state/it.next"), bytes.as_bytes()).map(drop)
            },
            |root| fs::read_to_string(root.join("state/it.json")).unwrap() == bytes,
        );
        assert!(tried >= 2, "{tried}");
    }
}
