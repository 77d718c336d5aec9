use super::*;

fn at(offset: u64) -> Checkpoint {
    Checkpoint { offset: Offset(offset), chunk: None }
}

fn noted(to: u64) -> Beginning {
    let moved = Some(Moved { over: Some(Offset(80)), sink_is_behind: true });
    Beginning { at: Offset(to), behind: None, instead_of: Some(at(100)), moved }
}

#[test]
fn only_what_was_replaced_is_moved_again() {
    let memory = |to| Some(Memory::Beginning(noted(to)));
    for own in [None, Some(at(100)), Some(at(9))] {
        assert_eq!(interrupted(own, memory(10)), Some(noted(10)), "{own:?}");
    }
    // The sink has gone on since.
    assert_eq!(interrupted(Some(at(101)), memory(10)), None);
    for own in [None, Some(at(9))] {
        assert_eq!(interrupted(own, Some(Memory::Beginning(settled(&noted(10))))), None);
        assert_eq!(interrupted(own, Some(finished(&noted(10), own))), None);
    }
    assert_eq!(interrupted(None, None), None);
}

/// Whatever the sink reaches after the move, it is never taken for what the move replaced.
#[test]
fn what_was_replaced_may_be_reached_again() {
    for to in [0, 10] {
        let begins = [Memory::Beginning(settled(&noted(to))), finished(&noted(to), None)];
        for beginning in begins.into_iter().filter_map(|memory| memory.beginning()) {
            assert!(!beginning.replaces(&at(100)) && !beginning.is_new_history());
        }
    }
    assert_eq!(finished(&noted(10), Some(at(9))), Memory::Position(at(9)));
    // The broker's offset cannot be moved there, or is.
    let over = |to| finished(&noted(to), None).beginning().unwrap().moved.is_some();
    assert!(over(0) && !over(10));
}
