//! Durable names: folders and small files that survive a power loss.
//!
//! The name of a file or folder is durable only after the folder that holds it was synced. After a
//! failed sync the kernel may have marked the change as written although it never reached the disk:
//! a second sync then succeeds and proves nothing. So nothing here is retried by syncing again; the
//! name is created again, which makes it a new change.
//!
//! That takes an empty folder. The name of one that holds something was durable before rillway put
//! anything into it, so a sync that fails later has nothing of it to lose; what others put there without
//! a sync of their own is theirs to lose.

mod atomic;
mod folders;
mod keep;
mod rights;
mod secret;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::atomic::replace;
#[cfg(feature = "object")]
pub(crate) use self::atomic::{rename, write_synced};
#[cfg(feature = "object")]
pub(crate) use self::folders::sync_folder;
pub(crate) use self::folders::{could_write_in, make_folder};
pub(crate) use self::keep::{Keep, News};
pub(crate) use self::rights::{lacking_to_write, unread, unwritten};
pub(crate) use self::secret::read_secret;

/// Suffix of a file's name while it is rewritten.
pub(crate) const NEXT: &str = ".next";
