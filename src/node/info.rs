//! The text of INFO: sections of `name:value` lines, as Redis writes them, from the rows of [`figures`](super::figures).

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::clients::Client;
use super::figures::{Figure, Read, Row, SECTIONS, Sight};
use super::node::Node;

/// The text of INFO with the arguments `asked`: the sections they name, each once; all when there are none.
pub(super) fn render(node: &Node, client: &Client, asked: &[&[u8]]) -> String {
    let asked: BTreeSet<String> =
        asked.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect();
    let is_all = asked.is_empty()
        || ["all", "default", "everything"].into_iter().any(|word| asked.contains(word));
    let sight = Sight::of(node);
    let mut lines = Lines::default();
    for section in SECTIONS {
        if !is_all && !asked.contains(&section.name.to_lowercase()) {
            continue;
        }
        lines.begin(section.name);
        for row in section.rows {
            lines.put_row(row, &sight, client);
        }
    }
    lines.text
}

/// Lines under construction. Writing to a String cannot fail.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn begin(&mut self, section: &str) {
        let gap = if self.text.is_empty() { "" } else { "\r\n" };
        let _infallible = write!(self.text, "{gap}# {section}\r\n");
    }

    fn put(&mut self, name: &str, value: impl fmt::Display) {
        let _infallible = write!(self.text, "{name}:{value}\r\n");
    }

    fn put_row(&mut self, row: &Row, sight: &Sight<'_>, client: &Client) {
        if let Read::Lines(read) = row.read {
            for (name, value) in read(sight) {
                self.put(&name, value);
            }
        }
        let Some(field) = row.field else { return };
        match row.read {
            Read::Fixed(text) => self.put(field, text),
            Read::Text(read) => {
                if let Some(text) = read(sight, client) {
                    self.put(field, text);
                }
            }
            Read::Number(_) | Read::IfKnown(_) | Read::Time(_) | Read::Each(_) | Read::Lines(_) => {
                let Some(figure) = row.figure(sight) else { return };
                self.put(field, figure);
                if let (Figure::Number(bytes), true) = (figure, row.is_size) {
                    self.put(&format!("{field}_human"), human(bytes));
                }
            }
        }
    }
}

/// `bytes` as Redis shows them to people: `1.51M`.
fn human(bytes: u64) -> String {
    let units = [("B", 0_u32), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let (unit, shift) =
        units.into_iter().rev().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("B", 0));
    if shift == 0 {
        return format!("{bytes}B");
    }
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TestNode;

    #[test]
    fn sizes_are_shown_to_people() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_584_104, "1.51M"),
            (u64::from(u32::MAX) + 1, "4.00G"),
        ];
        for (bytes, text) in table {
            assert_eq!(human(bytes), text);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sections_are_chosen_by_name() {
        let test = TestNode::start(&[]).await;
        let (node, client) = (&test.started.node, &test.client);
        let all = render(node, client, &[]);
        for line in [
            "redis_version:7.2.6",
            "redis_mode:standalone",
            "loading:0",
            "role:master",
            "connected_slaves:0",
            "maxmemory_policy:noeviction",
            "tcp_port:6379",
            "connected_clients:1",
            "total_connections_received:1",
            "cluster_enabled:1",
        ] {
            assert!(all.contains(&format!("{line}\r\n")), "{line} in {all}");
        }
        let headers = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(headers(&all), SECTIONS.len());
        assert_eq!(
            render(node, client, &[b"Everything", b"cpu"]).lines().count(),
            all.lines().count()
        );
        let two = render(node, client, &[b"CLUSTER", b"clients", b"cluster", b"nosuch"]);
        assert!(two.starts_with("# Clients\r\n") && two.contains("\r\n\r\n# Cluster\r\n"), "{two}");
        assert_eq!(headers(&two), 2);
        assert_eq!(render(node, client, &[b"nosuch"]), "");
    }
}
