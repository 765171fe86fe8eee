//! `docs/events.md`, from the catalogue.

use std::fmt::Write as _;

use tipstaff_events::{
    catalogue::COMMON,
    wire::{MAX_ARGS, MAX_TEXT},
};

use super::{Class, Field, From, Kind, Kinds, RingName};

const HEAD: &str = "# Events

<!-- Made from ebpf/events/src/catalogue.rs; BLESS=1 cargo test rewrites it. -->

An event is something that happened in the kernel, of one kind, with named and typed fields. A policy asks
for kinds and fields by name; what nobody asks for is neither hooked nor collected. `tipstaff events --list`
prints this list for the agent at hand, `tipstaff events KIND` the events themselves.

Kinds that are not listed here come from the configuration: a `[[probe]]` makes any tracepoint of the running
kernel a kind of its own, with the fields of its `format`. Its event's process is the one that runs; in an
interrupt that is whichever was interrupted, so events come whoever runs, the agent included. Only of the
tracepoints of system calls (`syscalls`, `raw_syscalls`) the agent's own are left out, as of all other kinds.

## Types

| type | asked for as | in JSON |
|---|---|---|
| `u8` `u16` `u32` `u64` | an unsigned number; wider for free, a narrower one is checked: what does not fit is absent if the field is optional, else clipped and flagged | number |
| `i32` `i64` | a signed number, likewise | number |
| `address` | `address`: IPv6, or IPv4 mapped into it, in network order | text; IPv4 as such |
| `text` | `text` (UTF-8, other bytes become U+FFFD and the row is flagged) or `bytes` (exact) | text; where it is not UTF-8, `NAME_hex` beside it has the exact bytes |
| `list` | `text` or `bytes`: the entries, each ended by a NUL | array of texts, and `NAME_hex` likewise |
| `name` | `text`: one of the listed names; or as a number | text |

A field has no value where the kernel has none to give (the local port of a failed attempt), where the value
could not be read, or where the kernel at hand does not show it. Then it is absent: left out in JSON, a bit in
a row if the policy asked for it as optional, else 0 or empty.
";

const CALLS: &str = "
## Calls: which ways into the kernel are seen

The kinds that report calls (`open`, `unlink`, `rename`, `connect`, `accept`, `listen`) are taken where the
call returns, with its result: failed attempts are events too. `via` says how the call came.

| way | what becomes of it |
|---|---|
| 64-bit calls | seen, `via = \"syscall\"` |
| 32-bit calls (`int 0x80`, 32-bit programs on a 64-bit kernel) | seen and decoded by their own table, `via = \"compat\"`; `socketcall` with its sub-calls is one of them where the kernel has it |
| `io_uring` | seen by the tracepoints of `io_uring`, with the fields that these have, `via = \"io_uring\"`, whether the completion finds room in its queue or not; at most 512 requests of `open`, `unlink` and `rename` are followed at the same time, and further ones count as lost (of `connect`, `accept` and `listen` at most 512 are known again whose completion finds no room); one that asks for no completion is reported when it is submitted, without a result. Where a kernel lacks these tracepoints, coverage is `partial: operations by io_uring are not seen` |
| calls that a signal interrupts | seen, `result` is `-EINTR`; where the kernel starts the call again, that is one more event |
| calls from inside the kernel (drivers, NFS, loop devices) | no process made them: not events |

`exec` is taken when the new program is in place, `fork` and `exit` when the process begins and ends, so these
do not depend on the way of the call.

## Processes and threads

`pid` is the process (thread group) and `tid` the thread, both in the initial pid namespace; `ns_pid` is the
process in its own. `fork` and `exit` come once per process, never for its threads; `thread_exit` comes for each
thread, the last one included. A process is identified by `pid` and its start (`start`, `child_start`,
`proc.start`), because pids are used again.

## Time

`time` is nanoseconds on the monotonic clock, which stands still while the machine sleeps. `wall_time` is
nanoseconds since 1970, from the offset between the clocks when the event was read. In JSON `time` is the wall
clock (RFC 3339, UTC) and `time_ns` the monotonic time; a file of such lines is a source of events (`tipstaff
test`), in which both may be left out.

## Lost events

What is lost is told in its place: to a policy as a gap, in JSON as a line of kind `gap` with `event`, `lost`,
`first_ns`, `last_ns` and `cause`, and in the metric `tipstaff_events_lost_total`. Causes:

| cause | where |
|---|---|
| `ring_full` | the ring buffer between kernel and agent had no room |
| `program_missed` | the kernel did not run the program (nested in itself), or it had no scratch memory |
| `map_full` | a map that holds what is in flight was full |
| `queue_full` | the policy was too slow for its queue |
| `instance_lost` | the policy failed with the batch that it had been handed |
| `cgroup_budget` | the cgroup had made more events than `events_per_cgroup` in `[agent]` allows: they were left out in the kernel, after filter and sample; `cgroup_budget` tells which cgroup |
| `agent_budget` | the agent had used more processor time than `cpu_percent` in `[agent]` allows: it was left out in the kernel, after filter and sample. Only who does not ask for `weight` is told, as rows with it stand for what was left out |
";

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    let _infallible = write(&mut page);
    page
}

fn write(page: &mut String) -> std::fmt::Result {
    let kinds = Kinds::built_in();
    writeln!(page, "\n## Kinds\n\n| kind | what happened |\n|---|---|")?;
    for kind in kinds.iter() {
        writeln!(page, "| [`{0}`](#{0}) | {1} |", kind.name, kind.doc)?;
    }
    writeln!(
        page,
        "\nA text is at most {MAX_TEXT} bytes long and the arguments of an `exec` {MAX_ARGS}; what is longer is cut \
         and flagged (in JSON `cut` lists the names of such fields)."
    )?;
    writeln!(page, "\n## Fields of every kind\n")?;
    let is_common = |field: &&Field| COMMON.iter().any(|common| common.name == field.name);
    let is_own = |field: &&Field| matches!(field.from, From::Record { .. }) && !is_common(field);
    let any = kinds.iter().next();
    table(page, any.into_iter().flat_map(|kind| kind.fields.iter().filter(is_common)))?;
    for kind in kinds.iter() {
        section(page, kind, kind.fields.iter().filter(is_own))?;
    }
    writeln!(
        page,
        "\n## Enriched fields\n\nEvery kind has these as well. They are read from tables in memory, never from the \
         kernel while an event waits, and cost nothing unless asked for. Where a table does not know the answer \
         the field is absent and the resolver is asked, so that later events have it; \
         `tipstaff_enrichment_misses_total` counts by field and reason (`not_yet`, `gone`, `none`, `busy`).\n"
    )?;
    let enriched = |field: &&Field| matches!(field.from, From::Table(_));
    table(page, any.into_iter().flat_map(|kind| kind.fields.iter().filter(enriched)))?;
    page.push_str(CALLS);
    Ok(())
}

fn section<'a>(
    page: &mut String,
    kind: &Kind,
    own: impl Iterator<Item = &'a Field>,
) -> std::fmt::Result {
    let ring = match kind.ring {
        RingName::Life => {
            " Its records travel in the life ring, apart from floods of other events."
        }
        RingName::Bulk => "",
    };
    writeln!(page, "\n### {}\n\n{}{ring}\n", kind.name, kind.doc)?;
    table(page, own)
}

fn table<'a>(page: &mut String, fields: impl Iterator<Item = &'a Field>) -> std::fmt::Result {
    writeln!(page, "| field | type | unit | meaning |\n|---|---|---|---|")?;
    for field in fields {
        let names = match field.class() {
            Class::Name(names) => format!(" One of `{}`.", names.join("`, `")),
            _ => String::new(),
        };
        let ty = field.class();
        writeln!(page, "| `{}` | `{ty}` | {} | {}{names} |", field.name, field.unit, field.doc)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::Enriched, *};

    #[test]
    fn docs_events_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).is_ok_and(|page| page == reference()),
            "docs/events.md is not what the catalogue says: run with BLESS=1 to rewrite it"
        );
    }

    #[test]
    fn every_kind_and_field_is_in_the_page() {
        let page = reference();
        for kind in Kinds::built_in().iter() {
            assert!(page.contains(&format!("\n### {}\n", kind.name)));
            for field in &kind.fields {
                assert!(
                    page.contains(&format!("| `{}` |", field.name)),
                    "{}.{}",
                    kind.name,
                    field.name
                );
            }
        }
        for entry in Enriched::ALL {
            assert!(page.contains(&format!("| `{}` |", entry.1)));
        }
    }
}
