use super::*;

/// A manager's socket, and what arrived there.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(address: &SocketAddr) -> Manager {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager { socket }
    }

    fn received(&self) -> Vec<String> {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            got.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
        }
        got
    }
}

fn notifier(socket: &str, usec: Option<&str>, pid: Option<&str>) -> Notifier {
    Notifier::new(Some(OsStr::new(socket)), usec.map(OsStr::new), pid.map(OsStr::new), 42).unwrap()
}

fn on_path() -> (tempfile::TempDir, Manager, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let name = path.to_str().unwrap().to_owned();
    (dir, manager, name)
}

#[test]
fn what_arrives_on_a_path() {
    let (_dir, manager, name) = on_path();
    let notifier = notifier(&name, None, None);
    notifier.ready();
    notifier.status("3 consumers,\nREADY=0");
    notifier.feed_watchdog(); // None was asked for.
    notifier.stopping();
    assert_eq!(manager.received(), ["READY=1", "STATUS=3 consumers, READY=0", "STOPPING=1"]);
}

#[test]
fn a_reload_has_its_time() {
    let (_dir, manager, name) = on_path();
    let notifier = notifier(&name, None, None);
    drop(notifier.reloading());
    let received = manager.received();
    let usec = received[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(usec.parse::<u64>().unwrap() > 0, "{received:?}");
    assert_eq!(received[1..], ["READY=1"]);
}

#[test]
fn what_arrives_on_an_abstract_name() {
    let unique = format!("rillway-test-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&unique).unwrap());
    notifier(&format!("@{unique}"), None, None).ready();
    assert_eq!(manager.received(), ["READY=1"]);
}

#[test]
fn nobody_listens() {
    let silent = Notifier::new(None, Some(OsStr::new("1000000")), None, 42).unwrap();
    silent.ready();
    assert_eq!(silent.watchdog_period(), None);
    let (dir, manager, name) = on_path();
    drop((manager, dir)); // The socket's file is gone: a warning, and the daemon continues.
    notifier(&name, None, None).ready();
}

#[test]
fn a_socket_that_cannot_be_used_is_named() {
    for name in ["vsock:2:1234", "relative", "@"] {
        match Notifier::new(Some(OsStr::new(name)), None, None, 42) {
            Ok(_) => assert_eq!(name, "@"), // The empty abstract name: no peer will ever be there.
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
}

#[test]
fn the_watchdog_is_ours_or_not() {
    let (_dir, _manager, name) = on_path();
    let half = Some(Duration::from_secs(15));
    let table = [
        (Some("30000000"), None, half),
        (Some("30000000"), Some("42"), half),
        (Some("30000000"), Some("43"), None),
        (Some("30000000"), Some("x"), None),
        (Some("0"), None, None),
        (Some("soon"), None, None),
        (None, Some("42"), None),
    ];
    for (usec, pid, expected) in table {
        assert_eq!(notifier(&name, usec, pid).watchdog_period(), expected, "{usec:?} {pid:?}");
    }
}

#[test]
fn the_watchdog_is_fed_only_while_every_loop_turns() {
    let (_dir, manager, name) = on_path();
    let notifier = notifier(&name, Some("1000000"), None);
    let beats = Heartbeats::new();
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let one = beats.register("one", 5 * second);
    let two = beats.register("two", 5 * second);
    one.touch_at(start);
    two.touch_at(start);

    let mut said = look(&notifier, &beats, start + 5 * second, None);
    assert_eq!((manager.received(), &said), (vec!["WATCHDOG=1".to_owned()], &None));

    one.touch_at(start + 6 * second);
    said = look(&notifier, &beats, start + 6 * second, said);
    assert_eq!((manager.received(), &said), (vec![], &Some(vec!["two".to_owned()])));

    drop(two); // Its loop ended: that is the supervisor's matter.
    said = look(&notifier, &beats, start + 7 * second, said);
    assert_eq!((manager.received(), &said), (vec!["WATCHDOG=1".to_owned()], &None));
}

#[tokio::test]
async fn the_task_goes_on_feeding() {
    let (_dir, manager, name) = on_path();
    let notifier = notifier(&name, Some("20000"), None);
    let beats = Heartbeats::new();
    let _pulse = beats.register("one", Duration::from_secs(3600));
    let five = tokio::task::spawn_blocking(move || {
        manager.socket.set_nonblocking(false).unwrap();
        manager.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = [0; 64];
        (0..5).map(|_| manager.socket.recv(&mut buffer).unwrap()).collect::<Vec<_>>()
    });
    tokio::select! {
        never = watch(&notifier, &beats) => match never {},
        lengths = five => assert_eq!(lengths.unwrap(), ["WATCHDOG=1".len(); 5]),
    }
}
