//! Prometheus, to read `/metrics` and evaluate rules.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::rstream::set_up_by_script;
use super::skip::Unavailable;

/// The folder of Prometheus' programs.
pub(crate) fn programs() -> Result<PathBuf, Unavailable> {
    Ok(set_up_by_script("prometheus")?.join("usr/bin"))
}

/// A private Prometheus that scrapes every 200 ms. Killed when dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Scrapes these targets, and evaluates these rules at the same interval.
    pub(crate) fn watching(programs: &Path, targets: &[String], rules: Option<&str>) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let rule_files = match rules {
            Some(rules) => {
                std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
                "rule_files: [rules.yml]\n"
            }
            None => "",
        };
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             {rule_files}scrape_configs:\n\
             - job_name: rillway\n  static_configs: [{{ targets: {targets:?} }}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut child = Command::new(programs.join("prometheus"))
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=logfmt"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = log.by_ref().map(Result::unwrap).find_map(|line| {
            let listens = line.split_once("msg=\"Listening on\" address=");
            let address = listens.map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
            said.push(line);
            address
        });
        let address =
            address.unwrap_or_else(|| panic!("Prometheus does not listen: {}", said.join("\n")));
        // Nothing else reads it, and a full pipe would block it.
        std::thread::spawn(move || log.for_each(drop));
        Prometheus { child, address, _dir: dir }
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of each series in a query's result, with its labels.
    pub(crate) async fn series(&self, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut url =
            reqwest::Url::parse(&format!("http://{}/api/v1/query", self.address)).unwrap();
        url.query_pairs_mut().append_pair("query", query);
        let Ok(answer) = client.get(url).send().await else { return Vec::new() };
        let Ok(answer) = serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()) else {
            return Vec::new();
        };
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        series
            .iter()
            .map(|one| {
                let labels = serde_json::from_value(one["metric"].clone()).unwrap();
                (labels, one["value"][1].as_str().unwrap().parse().unwrap())
            })
            .collect()
    }

    /// The value of each series in a query's result, by one of its labels.
    pub(crate) async fn query(&self, query: &str, label: &str) -> Vec<(String, f64)> {
        let mut found: Vec<_> = self
            .series(query)
            .await
            .into_iter()
            .map(|(labels, value)| (labels.get(label).cloned().unwrap_or_default(), value))
            .collect();
        found.sort_by(|a: &(String, f64), b| a.0.cmp(&b.0));
        found
    }
}
