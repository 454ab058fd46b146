//! The recorded sessions that the demo replays: request bodies of real Codex runs, with their times of arrival.
//!
//! This list is the only place that names the recordings. Only one of them has traces and metrics, which are stored, but
//! from which nothing is derived yet.

use super::{Body, Recording};

macro_rules! body {
    ($signal:literal, $arrived_ms:literal, $file:literal) => {
        Body {
            path: concat!("/v1/", $signal),
            arrived_ms: $arrived_ms,
            gzipped: false,
            bytes: include_bytes!(concat!("../../../tests/fixtures/0.169.0-http-binary-", $file)),
        }
    };
    (ws $signal:literal, $arrived_ms:literal, $file:literal) => {
        Body {
            bytes: include_bytes!(concat!("../../../tests/fixtures/0.171.0-ws-", $file)),
            ..body!($signal, $arrived_ms, "basic/0004-http-logs.pb")
        }
    };
    (gzip $signal:literal, $arrived_ms:literal, $file:literal) => {
        Body {
            gzipped: true,
            ..body!($signal, $arrived_ms, $file)
        }
    };
}

/// The recordings, in the order in which they are replayed: the first ones show retries, tools and approvals, over HTTP and
/// over WebSocket, by which Codex speaks to OpenAI itself.
pub const RECORDINGS: &[Recording] = &[
    Recording {
        name: "ratelimit",
        bodies: &[
            body!("logs", 1_795_369_057_916, "ratelimit/0001-http-logs.pb"),
            body!("logs", 1_795_369_058_868, "ratelimit/0002-http-logs.pb"),
            body!("logs", 1_795_369_059_869, "ratelimit/0004-http-logs.pb"),
        ],
    },
    Recording {
        name: "websocket",
        bodies: &[body!(ws "logs", 1_795_812_805_154, "basic/0004-http-logs.pb")],
    },
    Recording {
        name: "basic",
        bodies: &[
            body!(gzip "traces", 1_795_369_811_224, "basic/0001-http-traces.pb.gz"),
            body!("traces", 1_795_369_811_225, "basic/0002-http-traces.pb"),
            body!(gzip "metrics", 1_795_369_811_243, "basic/0003-http-metrics.pb.gz"),
            body!("logs", 1_795_369_811_267, "basic/0004-http-logs.pb"),
        ],
    },
    Recording {
        name: "websocket ratelimit",
        bodies: &[
            body!(ws "logs", 1_795_812_809_196, "ratelimit/0001-http-logs.pb"),
            body!(ws "logs", 1_795_812_810_100, "ratelimit/0002-http-logs.pb"),
            body!(ws "logs", 1_795_812_810_583, "ratelimit/0005-http-logs.pb"),
        ],
    },
    Recording {
        name: "approval_ok",
        bodies: &[body!("logs", 1_795_369_154_721, "approval_ok/0003-http-logs.pb")],
    },
    Recording {
        name: "websocket subagent",
        bodies: &[body!(ws "logs", 1_795_812_815_418, "subagent/0005-http-logs.pb")],
    },
    Recording {
        name: "subagent_v2",
        bodies: &[
            body!("logs", 1_795_369_128_456, "subagent_v2/0002-http-logs.pb"),
            body!("logs", 1_795_369_129_424, "subagent_v2/0005-http-logs.pb"),
        ],
    },
    Recording {
        name: "failed_event",
        bodies: &[
            body!("logs", 1_795_369_087_945, "failed_event/0001-http-logs.pb"),
            body!("logs", 1_795_369_088_696, "failed_event/0004-http-logs.pb"),
        ],
    },
    Recording {
        name: "error500",
        bodies: &[
            body!("logs", 1_795_369_066_768, "error500/0001-http-logs.pb"),
            body!("logs", 1_795_369_067_747, "error500/0002-http-logs.pb"),
            body!("logs", 1_795_369_068_752, "error500/0003-http-logs.pb"),
        ],
    },
    Recording {
        name: "websocket cut",
        bodies: &[body!(ws "logs", 1_795_812_806_954, "cut/0003-http-logs.pb")],
    },
    Recording {
        name: "guardian",
        bodies: &[body!("logs", 1_795_369_116_124, "guardian/0003-http-logs.pb")],
    },
    Recording {
        name: "mcp",
        bodies: &[
            body!("logs", 1_795_369_134_148, "mcp/0002-http-logs.pb"),
            body!("logs", 1_795_369_134_294, "mcp/0005-http-logs.pb"),
        ],
    },
    Recording {
        name: "websocket refused",
        bodies: &[body!(ws "logs", 1_795_812_813_654, "connect_retry/0004-http-logs.pb")],
    },
    Recording {
        name: "approval_denied",
        bodies: &[body!(
            "logs",
            1_795_369_164_051,
            "approval_denied/0003-http-logs.pb"
        )],
    },
    Recording {
        name: "compact",
        bodies: &[body!("logs", 1_795_369_815_956, "compact/0004-http-logs.pb")],
    },
    Recording {
        name: "websocket fallback",
        bodies: &[body!(ws "logs", 1_795_812_812_109, "connect_fail/0004-http-logs.pb")],
    },
    Recording {
        name: "tui",
        bodies: &[
            body!("logs", 1_795_369_797_484, "tui/0003-http-logs.pb"),
            body!("logs", 1_795_369_798_449, "tui/0004-http-logs.pb"),
            body!("logs", 1_795_369_803_233, "tui/0007-http-logs.pb"),
        ],
    },
    Recording {
        name: "cut",
        bodies: &[body!("logs", 1_795_369_084_462, "cut/0003-http-logs.pb")],
    },
    Recording {
        name: "apply_patch",
        bodies: &[body!("logs", 1_795_369_047_292, "apply_patch/0004-http-logs.pb")],
    },
    Recording {
        name: "subagent",
        bodies: &[
            body!("logs", 1_795_369_123_933, "subagent/0002-http-logs.pb"),
            body!("logs", 1_795_369_124_427, "subagent/0006-http-logs.pb"),
        ],
    },
    Recording {
        name: "code_mode",
        bodies: &[body!("logs", 1_795_369_141_375, "code_mode/0004-http-logs.pb")],
    },
    Recording {
        name: "auth_chatgpt",
        bodies: &[body!("logs", 1_795_369_340_233, "auth_chatgpt/0004-http-logs.pb")],
    },
    Recording {
        name: "tool_fails",
        bodies: &[body!("logs", 1_795_369_040_640, "tool_fails/0003-http-logs.pb")],
    },
    Recording {
        name: "resume",
        bodies: &[
            body!("logs", 1_795_369_102_838, "resume/0004-http-logs.pb"),
            body!("logs", 1_795_369_103_248, "resume/0007-http-logs.pb"),
        ],
    },
    Recording {
        name: "sandbox_denied",
        bodies: &[body!(
            "logs",
            1_795_369_109_449,
            "sandbox_denied/0003-http-logs.pb"
        )],
    },
    Recording {
        name: "tool_unknown",
        bodies: &[body!("logs", 1_795_369_044_155, "tool_unknown/0004-http-logs.pb")],
    },
    Recording {
        name: "slow_first_token",
        bodies: &[
            body!("logs", 1_795_369_091_720, "slow_first_token/0001-http-logs.pb"),
            body!("logs", 1_795_369_094_608, "slow_first_token/0004-http-logs.pb"),
        ],
    },
    Recording {
        name: "approval_never",
        bodies: &[body!(
            "logs",
            1_795_369_106_344,
            "approval_never/0003-http-logs.pb"
        )],
    },
    Recording {
        name: "idle_timeout",
        bodies: &[
            body!("logs", 1_795_369_097_673, "idle_timeout/0001-http-logs.pb"),
            body!("logs", 1_795_369_099_656, "idle_timeout/0003-http-logs.pb"),
        ],
    },
];
