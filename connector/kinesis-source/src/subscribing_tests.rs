use super::*;

fn event(continuation: Option<&str>, children: usize) -> PushedEvent {
    let child = |n| ShardInfo {
        id: format!("shardId-{n:012}").into(),
        parents: Vec::new(),
        hash_keys: None,
    };
    PushedEvent {
        records: Vec::new(),
        continuation: continuation.map(str::to_owned),
        millis_behind_latest: 0,
        children: (0..children).map(child).collect(),
    }
}

#[test]
fn an_end_needs_both_signs() {
    let more = Meaning::GoesOn("7".to_owned());
    assert_eq!(meaning(&mut event(Some("7"), 0)), more);
    assert!(
        matches!(meaning(&mut event(None, 2)), Meaning::Ended(children) if children.len() == 2)
    );
    assert_eq!(meaning(&mut event(None, 0)), Meaning::Doubtful);
    assert_eq!(meaning(&mut event(Some("7"), 2)), Meaning::Doubtful);
}
