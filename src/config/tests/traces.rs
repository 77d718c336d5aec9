//! The export of traces.

#[cfg(feature = "otel")]
use std::collections::BTreeMap;

use super::*;
#[cfg(feature = "otel")]
use crate::otlp::{Limits, Sampling};

fn traces(keys: &str, env: &Env) -> Option<TracesConfig> {
    File::new(&format!("{keys}{MINIMAL}")).load(env).unwrap().traces
}

#[cfg(feature = "otel")]
fn refusals(keys: &str) -> Vec<String> {
    problems(&format!("[traces]\n{keys}\n{MINIMAL}"), &Env::default())
}

#[test]
fn without_a_word_nothing_is_exported() {
    assert_eq!(traces("", &Env::default()), None);
    let env = Env::from([("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "always_on")]);
    assert_eq!(traces("", &env), None);
}

#[test]
#[cfg(feature = "otel")]
fn keys_and_their_defaults() {
    let Some(TracesConfig { options, concerns }) =
        traces("[traces]\nendpoint = \"http://h:4318\"\n", &Env::default())
    else {
        panic!("not taken")
    };
    assert_eq!((options.url.as_str(), concerns), ("http://h:4318/v1/traces", vec![]));
    assert_eq!((options.sampling, options.gzip), (Sampling::All, false));
    let secs = std::time::Duration::from_secs;
    let limits = Limits { queue: 2048, batch: 512, interval: secs(5), timeout: secs(10) };
    assert_eq!(options.limits, limits);
    assert_eq!(options.resource["service.name"], "rillway");
    assert_eq!(options.resource["service.version"], env!("CARGO_PKG_VERSION"));

    let env = Env::from([("TOKEN", "hunter2")]);
    let text = "[traces]\nendpoint = \"https://h/base/\"\nheaders = { Authorization = { env = \"TOKEN\" } }\n\
                service_name = \"orders\"\nresource = { \"deployment.environment.name\" = \"test\" }\n\
                sample = 0.25\ncompression = \"gzip\"\ntimeout = \"3s\"\ninterval = \"1s\"\nqueue = 100\n\
                tls = { ca = \"ca.pem\" }\n";
    let file = File::new(&format!("{text}{MINIMAL}"));
    let traces = file.load(&env).unwrap().traces.unwrap();
    let options = &traces.options;
    assert_eq!(options.url, "https://h/base/v1/traces");
    assert_eq!(options.headers["Authorization"].reveal(), "hunter2");
    assert!(!format!("{traces:?}").contains("hunter2"));
    assert_eq!(options.resource["service.name"], "orders");
    assert_eq!(options.resource["deployment.environment.name"], "test");
    assert_eq!((options.sampling, options.gzip), (Sampling::Share(0.25), true));
    let limits = Limits { queue: 100, batch: 100, interval: secs(1), timeout: secs(3) };
    assert_eq!(options.limits, limits);
    assert_eq!(options.tls.ca, Some(file.0.path().join("ca.pem")));
}

#[test]
#[cfg(feature = "otel")]
fn nonsense_is_refused_with_what_is_allowed() {
    let good = "endpoint = \"http://h:4318\"\n";
    for (keys, says) in [
        ("", "traces.endpoint: it is missing: give"),
        (
            "endpoint = \"h:4318\"",
            "traces.endpoint: expected http://HOST:PORT or https://HOST:PORT",
        ),
        ("endpoint = \"grpc://h:4317\"", "traces.endpoint: expected http://HOST:PORT"),
        ("endpoint = \"http://\"", "traces.endpoint: not a URL"),
        ("endpoint = \"http://u:hunter2@h\"", "traces.endpoint: it holds a user or a password"),
        (&format!("{good}sample = 1.5"), "traces.sample: 1.5 is out of range: expected 0.0"),
        (&format!("{good}timeout = \"0s\""), "traces.timeout: 0s is out of range: more than 0s"),
        (&format!("{good}interval = \"1ms\""), "traces.interval: 1ms is out of range: 100ms to 5m"),
        (&format!("{good}queue = 0"), "traces.queue: 0 is out of range: 1 to 65536"),
        (&format!("{good}service_name = \"\""), "traces.service_name: it is empty"),
        (
            &format!("{good}resource = {{ \"service.name\" = \"x\" }}"),
            "traces.resource.service.name: set `service_name`",
        ),
        (
            &format!("{good}headers = {{ Host = \"hunter2\" }}"),
            "traces.headers.Host: the request sets",
        ),
        (&format!("{good}headers = {{ \"a b\" = \"x\" }}"), "is not the name of a header"),
        (&format!("{good}headers = {{ a = \"hunter2\\n\" }}"), "traces.headers.a: its value holds"),
        (
            &format!("{good}tls = {{ ca = \"x\" }}"),
            "traces.tls: the endpoint's scheme is not https",
        ),
        (&format!("{good}endpiont = \"\""), "did you mean `endpoint`?"),
    ] {
        let told = refusals(keys);
        assert!(told.iter().any(|told| told.contains(says)), "{keys}: {told:?}");
        assert!(!told.iter().any(|told| told.contains("hunter2")), "{told:?}");
    }
}

#[test]
#[cfg(feature = "otel")]
fn the_variables_of_opentelemetry() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter%202, x = 1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_SERVICE_NAME", "named"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,region=eu%2Cwest"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32"),
    ];
    let TracesConfig { options, concerns } = traces("", &Env::from(env)).unwrap();
    assert_eq!(concerns, Vec::<String>::new());
    assert_eq!(options.url, "http://h:4318/v1/traces");
    let headers: BTreeMap<_, _> =
        options.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    assert_eq!(headers, [("api-key", "hunter 2"), ("x", "1")].into());
    assert_eq!(options.resource["service.name"], "named");
    assert_eq!(options.resource["region"], "eu,west");
    assert_eq!((options.sampling, options.gzip), (Sampling::Share(0.5), true));
    assert_eq!(options.tls.ca, Some("/ca.pem".into()));
    let millis = std::time::Duration::from_millis;
    let limits = Limits { queue: 64, batch: 32, interval: millis(1000), timeout: millis(2500) };
    assert_eq!(options.limits, limits);

    // The variable of the signal is used as it is, and a key of the file comes before both.
    let of_signal = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/own");
    let both = Env::from([env[0], of_signal]);
    assert_eq!(traces("", &both).unwrap().options.url, "http://t:1/own");
    let keys = "[traces]\nendpoint = \"http://f:2\"\n";
    assert_eq!(traces(keys, &both).unwrap().options.url, "http://f:2/v1/traces");
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(traces(keys, &Env::from([off])), None, "{off:?}");
    }
}

#[test]
#[cfg(feature = "otel")]
fn a_variable_that_cannot_be_used_is_told_and_ignored() {
    for (name, value, says) in [
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            "is not supported, and parentbased_always_on is used",
        ),
        ("OTEL_TRACES_EXPORTER", "zipkin", "is not supported, and otlp is used"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "usually on port 4318"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "is neither gzip nor none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "and 10s is used"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "and 2048 is used"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "and 5s is used"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "not KEY=VALUE, and is left out"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "host=hunter2", "\"host\" cannot be sent"),
    ] {
        let env = Env::from([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318"), (name, value)]);
        let concerns = traces("", &env).unwrap().concerns;
        assert_eq!(concerns.len(), 1, "{name}: {concerns:?}");
        assert!(concerns[0].starts_with(&format!("{name}: ")), "{concerns:?}");
        assert!(concerns[0].contains(says), "{concerns:?}");
        assert!(!concerns[0].contains("hunter2"), "{concerns:?}");
    }
}

#[test]
#[cfg(feature = "otel")]
fn an_endpoint_that_cannot_be_used_stops_nothing() {
    for endpoint in
        ["h:4317", "grpc://h:4317", "http://user:hunter2@h:4318", "http://h/?token=hunter2", "x"]
    {
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let config = File::new(MINIMAL).load(&Env::from([(name, endpoint)])).unwrap();
        assert_eq!(config.traces, None, "{endpoint}");
        let [concern] = config.traces_ignored.as_slice() else { panic!("{endpoint}") };
        assert!(concern.starts_with(name) && concern.contains("ignored"), "{concern}");
        assert!(!concern.contains("hunter2"), "{concern}");
        // The other one counts.
        let both =
            Env::from([("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint), (name, "http://h:4318")]);
        let traces = File::new(MINIMAL).load(&both).unwrap().traces.unwrap();
        assert_eq!(traces.options.url, "http://h:4318/v1/traces");
        assert_eq!(traces.concerns.len(), 1, "{:?}", traces.concerns);
    }
}

#[test]
#[cfg(feature = "otel")]
fn only_headers_change_while_the_daemon_runs() {
    let file = File::new("");
    let write = |keys: &str| std::fs::write(file.path(), format!("[traces]\n{keys}\n{MINIMAL}"));
    write("endpoint = \"http://h:1\"\nheaders = { a = \"1\" }").unwrap();
    let running = file.load(&Env::default()).unwrap();
    let anew = || Config::load_anew(Some(&file.path()), &Env::default(), &running);
    write("endpoint = \"http://h:1\"\nheaders = { a = \"2\" }").unwrap();
    let new = anew().unwrap();
    assert_eq!(new.traces.unwrap().options.headers["a"].reveal(), "2");
    write("endpoint = \"http://h:2\"").unwrap();
    let told = anew().unwrap_err().to_string();
    assert!(told.contains("traces: it cannot change while the daemon runs"), "{told}");
}
