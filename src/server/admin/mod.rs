//! The admin door: health, metrics and the state of shards over HTTP/1.1, for operators and their tools.
//!
//! Answers GET alone and changes nothing. `http` is the door, `hosts` the names it answers to, `visits` who is there;
//! `pages` says what there is, `api` what the JSON pages say, `metrics` what Prometheus reads.

mod api;
mod hosts;
mod http;
mod limits;
mod metrics;
mod pages;
mod visits;

pub(super) use hosts::Hosts;
pub(super) use http::accept;
pub(super) use limits::CONNECTIONS_MAX;
pub(super) use visits::Visits;
