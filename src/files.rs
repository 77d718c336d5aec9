//! Names on the medium: folders and small files that are there after a power loss.
//!
//! A file's or folder's name is durable only once the folder that holds it was synced. After a sync
//! that failed, the kernel may have marked the change as written although it never reached the medium:
//! a second sync then succeeds and proves nothing. So nothing here is retried by syncing again; the
//! name is given anew, which makes it a change that is yet to be written.
//!
//! That takes an empty folder. The name of one that holds something was durable before rillway put
//! anything into it, so a sync that fails later has nothing of it to lose; what others put there without
//! a sync of their own is theirs to lose.

mod atomic;
mod folders;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::atomic::replace;
#[cfg(feature = "object")]
pub(crate) use self::atomic::{rename, write_synced};
#[cfg(feature = "object")]
pub(crate) use self::folders::sync_folder;
pub(crate) use self::folders::{could_write_in, make_folder};
