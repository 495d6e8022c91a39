//! The texts in which people name nodes: `cluster-nodes` in the configuration, `--add` on the command line.

use crate::ids::NodeId;
use crate::ring::ListedNode;
use crate::ring::limits::{HOST_BYTES_MAX, NAME_BYTES_MAX, NODES_MAX, WEIGHT_MAX, ZONE_BYTES_MAX};

/// A node as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name: letters, digits, `.`, `_` and `-`, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Where peers reach it, without brackets.
    pub host: String,
    /// The port of its peer door, not 0.
    pub peer_port: u16,
    /// Its weight, 1..=[`WEIGHT_MAX`]; 1 when not given.
    pub weight: u16,
    /// Its zone; empty when not given.
    pub zone: String,
}

/// Why a text names no node. Every message is one line and quotes the text at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeSpecError {
    /// There is no node in the list.
    #[error("no nodes: expected name=host:peerport[:weight[:zone]] …")]
    Empty,
    /// More than [`NODES_MAX`] nodes.
    #[error("{0} nodes are too many: at most {NODES_MAX}")]
    TooMany(usize),
    /// An entry has not the form of one.
    #[error("\"{0}\": expected name=host:peerport[:weight[:zone]]")]
    Form(String),
    /// A name or zone is empty, too long or has other characters than it may.
    #[error("\"{entry}\": the {field} must be 1..={bytes_max} of a-z A-Z 0-9 . _ -")]
    Word {
        /// The entry at fault.
        entry: String,
        /// Which of its fields.
        field: &'static str,
        /// How long it may be.
        bytes_max: usize,
    },
    /// A host is empty, too long or holds what no host holds.
    #[error("\"{0}\": bad host (an IPv6 address goes in brackets: [::1])")]
    Host(String),
    /// A port is no number or out of range.
    #[error("\"{entry}\": bad port \"{port}\": expected 1..=65535")]
    Port {
        /// The entry at fault.
        entry: String,
        /// What stood for the port.
        port: String,
    },
    /// A weight is no number or out of range.
    #[error("\"{entry}\": bad weight \"{weight}\": expected 1..={WEIGHT_MAX}")]
    Weight {
        /// The entry at fault.
        entry: String,
        /// What stood for the weight.
        weight: String,
    },
    /// Two entries have one name.
    #[error("node \"{0}\" is named twice")]
    DuplicateName(String),
    /// Two names hash to one id.
    #[error("nodes \"{0}\" and \"{1}\" have the same id: rename one of them")]
    IdCollision(String, String),
    /// Two entries have one address.
    #[error("nodes \"{0}\" and \"{1}\" have the same address")]
    DuplicateAddress(String, String),
}

impl NodeSpec {
    /// Parses `n1=host:peerport[:weight[:zone]] n2=…`, entries separated by blanks or commas.
    ///
    /// # Errors
    /// At the first entry at fault, or when two entries share a name, an address or an id.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, NodeSpecError> {
        let is_separator = |c: char| c == ',' || c.is_ascii_whitespace();
        let entries: Vec<&str> = text.split(is_separator).filter(|e| !e.is_empty()).collect();
        if entries.is_empty() {
            return Err(NodeSpecError::Empty);
        }
        if entries.len() > NODES_MAX {
            return Err(NodeSpecError::TooMany(entries.len()));
        }
        let specs = entries.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        refuse_duplicates(&specs, NodeId::of_name)?;
        Ok(specs)
    }

    /// Parses one `name=host:peerport[:weight[:zone]]`.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range.
    pub fn parse(entry: &str) -> Result<Self, NodeSpecError> {
        let form = || NodeSpecError::Form(entry.to_owned());
        let (name, address) = entry.split_once('=').ok_or_else(form)?;
        check_word(entry, "name", name, NAME_BYTES_MAX)?;
        let (host, rest) = split_host(entry, address)?;
        let mut fields = rest.split(':');
        let port = fields.next().unwrap_or_default();
        let peer_port = parse_number(port).filter(|&port| port > 0).ok_or_else(|| {
            NodeSpecError::Port { entry: entry.to_owned(), port: port.to_owned() }
        })?;
        let (weight, zone) = parse_weight_and_zone(entry, fields.next(), fields.next())?;
        if fields.next().is_some() {
            return Err(form());
        }
        Ok(Self { name: name.to_owned(), host: host.to_owned(), peer_port, weight, zone })
    }

    /// The node of a topology that this names; it has not announced its doors yet.
    pub fn into_node(self) -> ListedNode {
        ListedNode {
            id: NodeId::of_name(&self.name),
            name: self.name,
            host: self.host,
            peer_port: self.peer_port,
            weight: self.weight,
            zone: self.zone,
            doors: None,
        }
    }
}

/// Parses `ID[:weight[:zone]]` into name, weight and zone.
///
/// # Errors
/// When a field is malformed or out of range, or there are more than three.
pub(super) fn parse_newcomer(text: &str) -> Result<(String, u16, String), NodeSpecError> {
    let mut fields = text.split(':');
    let name = fields.next().unwrap_or_default();
    check_word(text, "name", name, NAME_BYTES_MAX)?;
    let (weight, zone) = parse_weight_and_zone(text, fields.next(), fields.next())?;
    if let Some(excess) = fields.next() {
        let entry = format!("{text}\" at \":{excess}");
        return Err(NodeSpecError::Word { entry, field: "zone", bytes_max: ZONE_BYTES_MAX });
    }
    Ok((name.to_owned(), weight, zone))
}

fn parse_weight_and_zone(
    entry: &str,
    weight: Option<&str>,
    zone: Option<&str>,
) -> Result<(u16, String), NodeSpecError> {
    let text = weight.unwrap_or("1");
    let weight = parse_number(text).filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    let weight = weight.ok_or_else(|| NodeSpecError::Weight {
        entry: entry.to_owned(),
        weight: text.to_owned(),
    })?;
    if let Some(zone) = zone {
        check_word(entry, "zone", zone, ZONE_BYTES_MAX)?;
    }
    Ok((weight, zone.unwrap_or_default().to_owned()))
}

/// Splits `host:rest` or `[ipv6]:rest`.
fn split_host<'a>(entry: &str, address: &'a str) -> Result<(&'a str, &'a str), NodeSpecError> {
    let bad = || NodeSpecError::Host(entry.to_owned());
    if let Some(bracketed) = address.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or_else(bad)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        let rest = rest.strip_prefix(':');
        return Ok((host, rest.ok_or_else(|| NodeSpecError::Form(entry.to_owned()))?));
    }
    let (host, rest) =
        address.split_once(':').ok_or_else(|| NodeSpecError::Form(entry.to_owned()))?;
    let is_host = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_word_byte);
    if is_host { Ok((host, rest)) } else { Err(bad()) }
}

/// Digits only: `u16::from_str` would also take a sign.
fn parse_number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn check_word(
    entry: &str,
    field: &'static str,
    word: &str,
    bytes_max: usize,
) -> Result<(), NodeSpecError> {
    if (1..=bytes_max).contains(&word.len()) && word.bytes().all(is_word_byte) {
        return Ok(());
    }
    Err(NodeSpecError::Word { entry: entry.to_owned(), field, bytes_max })
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn refuse_duplicates(
    specs: &[NodeSpec],
    id_of: impl Fn(&str) -> NodeId,
) -> Result<(), NodeSpecError> {
    for (at, spec) in specs.iter().enumerate() {
        for earlier in &specs[..at] {
            let names = || (earlier.name.clone(), spec.name.clone());
            if earlier.name == spec.name {
                return Err(NodeSpecError::DuplicateName(names().1));
            }
            if id_of(&earlier.name) == id_of(&spec.name) {
                return Err(NodeSpecError::IdCollision(names().0, names().1));
            }
            if (&earlier.host, earlier.peer_port) == (&spec.host, spec.peer_port) {
                return Err(NodeSpecError::DuplicateAddress(names().0, names().1));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str, expected: &[(&str, &str, u16, u16, &str)]) {
        let specs = NodeSpec::parse_list(text).unwrap();
        let fields: Vec<_> = specs
            .iter()
            .map(|s| (s.name.as_str(), s.host.as_str(), s.peer_port, s.weight, s.zone.as_str()))
            .collect();
        assert_eq!(fields, expected);
    }

    #[track_caller]
    fn bad(text: &str, message: &str) {
        let error = NodeSpec::parse_list(text).unwrap_err().to_string();
        assert_eq!(error, message);
        assert!(!error.contains('\n'));
    }

    #[test]
    fn lists_of_nodes_parse() {
        good("n1=10.0.0.1:16379", &[("n1", "10.0.0.1", 16_379, 1, "")]);
        good(
            "n1=a:1 n2=b.example:2:3,\tn3=c:65535:100:eu-1\n",
            &[
                ("n1", "a", 1, 1, ""),
                ("n2", "b.example", 2, 3, ""),
                ("n3", "c", 65_535, 100, "eu-1"),
            ],
        );
        good(
            "n1=[::1]:7 n2=[2001:db8::2]:7:2:z",
            &[("n1", "::1", 7, 1, ""), ("n2", "2001:db8::2", 7, 2, "z")],
        );
    }

    #[test]
    fn faults_are_named_in_one_line() {
        bad(" ", "no nodes: expected name=host:peerport[:weight[:zone]] …");
        bad("n1", "\"n1\": expected name=host:peerport[:weight[:zone]]");
        bad("n1=host", "\"n1=host\": expected name=host:peerport[:weight[:zone]]");
        bad("n1=h:1:1:z:x", "\"n1=h:1:1:z:x\": expected name=host:peerport[:weight[:zone]]");
        bad("=h:1", "\"=h:1\": the name must be 1..=64 of a-z A-Z 0-9 . _ -");
        bad("n/1=h:1", "\"n/1=h:1\": the name must be 1..=64 of a-z A-Z 0-9 . _ -");
        bad("n1=h:1:1:", "\"n1=h:1:1:\": the zone must be 1..=64 of a-z A-Z 0-9 . _ -");
        for port in ["", "0", "65536", "+1", "x"] {
            let text = format!("n1=h:{port}");
            bad(&text, &format!("\"{text}\": bad port \"{port}\": expected 1..=65535"));
        }
        for weight in ["", "0", "101", "-1", "1.5"] {
            let text = format!("n1=h:1:{weight}");
            bad(&text, &format!("\"{text}\": bad weight \"{weight}\": expected 1..=100"));
        }
        for host in ["", "[::1", "[x]", "h/x"] {
            let text = format!("n1={host}:1");
            bad(&text, &format!("\"{text}\": bad host (an IPv6 address goes in brackets: [::1])"));
        }
        bad("n1=::1:7", "\"n1=::1:7\": bad host (an IPv6 address goes in brackets: [::1])");
        bad("n1=a:1 n2=b:1 n1=c:1", "node \"n1\" is named twice");
        bad("n1=a:1 n2=a:1", "nodes \"n1\" and \"n2\" have the same address");
        let many: Vec<String> = (0..257).map(|i| format!("n{i}=h{i}:1")).collect();
        bad(&many.join(" "), "257 nodes are too many: at most 256");
    }

    #[test]
    fn colliding_ids_are_refused() {
        let specs = NodeSpec::parse_list("n1=a:1 n2=b:1").unwrap();
        let error = refuse_duplicates(&specs, |_| NodeId(1)).unwrap_err().to_string();
        assert_eq!(error, "nodes \"n1\" and \"n2\" have the same id: rename one of them");
    }

    #[test]
    fn newcomers_parse() {
        let good = |text: &str| parse_newcomer(text).unwrap();
        assert_eq!(good("n4"), ("n4".to_owned(), 1, String::new()));
        assert_eq!(good("n4:2"), ("n4".to_owned(), 2, String::new()));
        assert_eq!(good("n4:2:eu"), ("n4".to_owned(), 2, "eu".to_owned()));
        for text in ["", ":1", "n4:", "n4:0", "n4:101", "n4:1:", "n4:1:a:b", "n 4"] {
            assert!(parse_newcomer(text).is_err(), "{text}");
        }
    }
}
