//! What the plan of `check` says.

use super::*;
use crate::config::Env;

fn config() -> Config {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rillway.toml");
    Config::load(Some(demo.as_ref()), &Env::default()).unwrap()
}

#[test]
fn the_plan_says_for_each_consumer_what_is_promised() {
    let text = CheckPlan::new(&config(), HashMap::new()).to_string();
    for says in [
        "consumer \"analytics\"\n  stream:     \"events\", reference \"analytics\"\n",
        "guarantee:  exactly-once\n  memory:     at most 147MiB\n",
        "guarantee:  at-least-once\n  memory:     at most 60MiB\n",
        "memory:  at most 437MiB for all consumers",
        "or else at first (ask with --connect)",
    ] {
        assert!(text.contains(says), "{says:?} is not in\n{text}");
    }
    assert!(!text.contains("guest:guest"), "{text}");
}

#[test]
fn each_consumer_is_shown_with_its_resume_position() {
    let report = ResumeReport {
        position: "offset 7".into(),
        why: "the sink's own position is 6".into(),
        create: None,
    };
    let asked = HashMap::from([
        (
            ConsumerName::new("analytics"),
            Answers::OfStream(Err("the stream is not there".to_owned())),
        ),
        (ConsumerName::new("archiver"), Answers::OfStream(Ok(report))),
    ]);
    let plan = CheckPlan::new(&config(), asked);
    let resumes: Vec<bool> = plan.consumers.iter().map(|c| c.resume.is_some()).collect();
    assert_eq!(resumes, [false, false, true]);
    let text = plan.to_string();
    assert!(text.contains("resumes:    offset 7 (the sink's own position is 6)"), "{text}");
    assert!(text.contains("PROBLEM:    the stream is not there"), "{text}");
    assert!(text.contains("but 1 of 3 consumers could not run"), "{text}");
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["consumers"][2]["resume"]["position"], "offset 7");
    assert_eq!(json["consumers"][0]["problem"], "the stream is not there");
    assert_eq!(json["consumers"][2]["guarantee"], "exactly-once");
}
