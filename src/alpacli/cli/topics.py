"""What ``alpacli help TOPIC`` says, and the manual page too: the parts of the contract that belong to no single command."""

from typing import Final, NamedTuple


class Topic(NamedTuple):
    title: str
    text: str


_EXIT_CODES: Final = """\
0     success. Also stream, serve and sim serve that were ended by
      Ctrl-C, SIGTERM, --count or --duration, and a reader that left
      (| head -1).
1     a defect in alpacli. --verbose shows where.
2     wrong usage: the command line itself, an order that lacks its
      quantity, side or price or says a word that orders do not have,
      or a question that nobody answered with yes.
3     configuration or authentication: no keys, keys that the server
      refuses, live keys, a refused URL, a redirect, a stream that the
      plan does not include (402).
4     the broker, or a rule of Alpaca's or your own, said no: not found,
      rejected, insufficient buying power, a wrong symbol, a price off
      its tick, a halt, a stream's 405 and 409.
5     rate limited, and waiting longer than --max-wait was not allowed.
6     unavailable: network, timeout, 5xx, an unreadable answer, circuit
      breaker open, a stream lost for good (406 too).
7     an order was sent, and nobody knows what became of it.
      `alpacli orders --unresolved` finds out.
8     the output could not be written (a full disk), or not be shown as
      --jq says. What was to be done WAS done: an order that was placed
      is named on stderr with its IDs, and must not be sent again. With
      --json the error has the whole answer as "result".
130   interrupted by Ctrl-C (all other commands).
143   ended by SIGTERM, and 129 by SIGHUP: as Ctrl-C does, an order that
      was on its way is told as an error with its client order ID.

In a script:

    if ! equity=$(alpacli account --jq .equity); then
      case $? in
        5|6) exit 0 ;;                          # another time
        7)   alpacli orders --unresolved ;;
        *)   exit 1 ;;
      esac
    fi
"""

_ENVIRONMENT: Final = """\
Flags win over the environment, over .env in the working directory, over
the profile, over defaults. A profile that is named with --profile wins
over the environment too. An empty value counts as not set.
`alpacli config show --origin` tells each value and where it came from.

ALPACA_API_KEY, ALPACA_SECRET_KEY      a paper key pair, taken whole
                                       from one place
APCA_API_KEY_ID, APCA_API_SECRET_KEY   the same, under the names of
                                       older tools
ALPACA_BASE_URL       https://paper-api.alpaca.markets, or a server on
                      this machine; nothing else is accepted
ALPACA_DATA_URL       https://data.alpaca.markets, likewise; set all
                      three for a server on this machine
ALPACA_STREAM_URL     wss://stream.data.alpaca.markets, likewise
REDIS_URL             share cache, budget, breaker and halt with other
                      machines: redis://, rediss://,
                      redis+sentinel://host:port,…/master/db,
                      redis+cluster://host:port,…
ALPACLI_PROFILE       a profile of config.toml
ALPACLI_CONFIG_DIR    where config.toml and risk.toml are (Linux:
                      ~/.config/alpacli)
ALPACLI_STATE_DIR     cache, budget, history, journal, offline exchange
                      (Linux: ~/.local/state/alpacli)
ALPACLI_RATE_LIMIT    requests in a window (200)
ALPACLI_RATE_RESERVE  how many of them are kept for orders (20)
ALPACLI_RATE_WINDOW   seconds (60)
ALPACLI_MAX_WAIT      seconds a command waits for the budget (10)
ALPACLI_BREAKER_OPEN  seconds the circuit breaker stays open (30)
ALPACLI_HUB_LINGER    seconds the shared stream connection outlives its
                      last reader (30)
NO_COLOR, FORCE_COLOR, TERM=dumb       as everywhere

What `stream --updates --exec COMMAND` tells its command, empty where an
update does not have it: ALPACLI_EVENT, ALPACLI_SYMBOL, ALPACLI_SIDE,
ALPACLI_STATUS, ALPACLI_ORDER_ID, ALPACLI_CLIENT_ORDER_ID, ALPACLI_QTY,
ALPACLI_PRICE, ALPACLI_POSITION_QTY, ALPACLI_FILLED_QTY,
ALPACLI_FILLED_AVG_PRICE, ALPACLI_TIMESTAMP.
"""

_JSON: Final = """\
--json prints the data itself on stdout: one object (account), an array
(orders; an empty list is []), or one object a line (stream). Everything
else goes to stderr.

  - Names are Alpaca's own. Fields that Alpaca adds pass through; none
    is renamed. null stays null.
  - Amounts, prices and quantities are JSON numbers with every digit
    that Alpaca sent. Read them as decimals where that matters: jq keeps
    them when they are only passed on, Python's json takes
    parse_float=decimal.Decimal.
  - IDs, symbols and times are strings; times are RFC 3339 with all
    nanosecond digits.
  - `alpacli COMMAND --schema` prints the JSON Schema and sends nothing.
  - --jq EXPR runs a jq program, strings come out raw; --fields a,b
    chooses and orders; --csv is the same as rows.

A failure prints nothing on stdout and one object on stderr:

    {"error": {"type", "message", "hint", "status", "code",
               "request_id", "retry_after"}}

    alpacli positions --jq '.[] | select(.unrealized_pl < 0) | .symbol'
    alpacli orders --json --fields symbol,qty,status | jq -c '.[]'
"""

_CRON: Final = """\
cron starts with almost no environment, in the home directory, and mails
what is printed. So:

  - Give the keys in a profile (`alpacli login`) or in .env of the
    directory that the job changes to. A job without keys ends with exit
    3; it never reports a made-up account.
  - --only-if-open ends silently with 0 while the market is closed.
  - --quiet says nothing on stderr but errors, so a mail means that
    something is wrong.
  - --max-wait 0 does not wait for the request budget (exit 5),
    --max-wait 50 waits nearly the whole minute.
  - Any number of jobs in the same second cause one request; they share
    the cache and the budget.

    * * * * *     alpacli snapshot --only-if-open --quiet
    */5 * * * *   cd bot && alpacli positions --json --only-if-open >> p.jsonl
    5 16 * * 1-5  alpacli history sync --quiet

`alpacli snapshot install --every 5m` writes the line, or a systemd
timer, with the full path and the environment.
"""

TOPICS: Final = {
    "exit-codes": Topic("what the exit codes mean", _EXIT_CODES),
    "environment": Topic("the variables that are read", _ENVIRONMENT),
    "json": Topic("what --json promises", _JSON),
    "cron": Topic("running unattended", _CRON),
}
