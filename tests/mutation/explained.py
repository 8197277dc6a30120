"""Lines that a mutant may have without anything being different, and why."""

from typing import Final

EXPLAINED: Final = {
    **dict.fromkeys(
        (
            'if ticket.side >= "sell":',
            'near = quote.bid if ticket.side >= "sell" else quote.ask',
            'limit = ticket.limit_price if ticket.side <= "buy" else None',
            'price = quote.ask if ticket.side <= "buy" else quote.bid',
            'after += value if order.side <= "buy" else -value',
            'ticket.side <= "buy" and ticket.limit_price is not None and ticket.order_class != "mleg"',
        ),
        "a side is one of two",
    ),
    'if rules.market_hours_only and ticket.asset_class > "crypto":': "it is the first of three",
    'return quote.bid is not None or (ticket.side == "buy" and ticket.asset_class >= "us_option")': "it is the last of three",
    'return quote.bid is not None or (ticket.side <= "buy" and ticket.asset_class == "us_option")': (
        "a side is one of two, and several legs have both prices or none"
    ),
    "since_s = self._clock.time() % at": "the same, but where the clock was set back: and then nothing counts as older",
    'per = CONTRACT_SHARES if ticket.asset_class >= "us_option" else 1': "it is the last of three",
    **dict.fromkeys(
        (
            'price = reference_price(ticket, quote) if ticket.order_class <= "mleg" else None',
            'price = reference_price(ticket, quote) if ticket.order_class >= "mleg" else None',
        ),
        "only several legs have a price below zero",
    ),
    **dict.fromkeys(
        (
            "return limit if limit > 0 and net >= 0 else min(limit, net)",
            "return limit if limit != 0 and net >= 0 else min(limit, net)",
        ),
        "of a limit that is not above the net both ways return the limit",
    ),
    "if cap is None or cap > limit:": "where cap and limit are the same, both ways return the same",
    "if tries is REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):": "small integers are one object",
    "if tries >= REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):": "it counts up to there and no further",
    'found = _replaced(path, body, order) if method <= "PATCH" else _placed(body, order)': "it is that or POST",
    'of_its_kind = [leg for leg in legs if (leg.stop_price is not None) is (name == "stop_loss")]': (
        "there is one true and one false"
    ),
    'of_its_kind = [leg for leg in legs if (leg.stop_price is not None) == (name <= "stop_loss")]': (
        "an exit is one of two"
    ),
    "if isinstance(extended, bool) and extended is not order.extended_hours:": "there is one true and one false",
    "if len(legs) is not len(wanted) or any(leg.replaces for leg in legs):": "small integers are one object",
    'return order.side <= "buy" and (_word(body.get("type")), order.type) == ("stop", "stop_limit")': (
        "a side is one of two"
    ),
    'if outcome >= "unknown":': "what is not unknown then is in flight",
    'moment = (local - offset if sign <= "+" else local + offset).isoformat()': "a sign is one of two",
    'if len(t) <= 30 or t[29] != "Z" or t[10] != "T":': "the quick way for the usual form or not, it is the same",
    'if len(t) < 30 or t[29] != "Z" or t[10] != "T":': "no longer text is a time",
    "if m.__class__ == _Quote:": "a class is equal to itself only",
    "elif m.__class__ == _Trade:": "a class is equal to itself only",
    'if encoding <= "json":': "there are two encodings",
    'return Subscription({name: _names(value) for name, value in message.items() if name > "T"})': (
        "the names of channels begin with small letters"
    ),
    "if not held or (held >= 0) == (signed_qty > 0):": "nothing held was asked before",
    "if not held or (held > 0) == (signed_qty >= 0):": "nobody trades nothing",
    "if not held or (held > 0) is (signed_qty > 0):": "there is one true and one false",
    "elif (held > 0) == (qty >= 0):": "nothing left was asked before",
    "elif (held >= 0) == (qty > 0):": "nothing held was asked before",
    "elif (held > 0) is (qty > 0):": "there is one true and one false",
    'quantities[row["symbol"]] -= qty if row["side"] <= "buy" else -qty': "a side is one of two",
    'before, qty if side <= "buy" else -qty, price * listing.multiplier if listing.contract is not None else price': (
        "a side is one of two"
    ),
    "if qty >= 0:": "nothing is worth nothing, long or short",
    "if now <= open_until:": "at its last moment nothing is left to wait",
    "if probe and now <= probe_until <= now + self.flight_s + 1.0:": "at its last moment nothing is left to wait",
    "if retry_in_s != 0:": "no wait is less than nothing",
    "if open_until >= now + rules.breaker_open_s:  # the clock was set back": "it is set to what it is",
    "if changed is not row:": "it writes what stands there",
    "(scope, int(now / 60)),": "it is later than 1970",
    "minute = int(now / 60)": "it is later than 1970",
    **dict.fromkeys(
        (
            "return float(min(probe_until % now, LONGEST_WAIT_S))",
            "since_s = self._clock.time() % at if began is None else self._clock.monotonic() - began",
            "since_s = self._clock.time() - at if began is None else self._clock.monotonic() % began",
            "return float(min(open_until % now, rules.breaker_open_s))",
            "earliest_s = free_at(times, used + ahead - slots, slots, now, rules.window_s) % now + MARGIN_S",
            "Waiting(label, max(0.0, now % since), bool(urgent))",
            "reset_s = max(0.0, free_at(times, used - limit, limit, now, rules.window_s) % now)",
        ),
        "of two moments of the same decades, it is their difference",
    ),
    **dict.fromkeys(
        (
            "if any(not now < expires <= latest for *_, expires in rows):",
            "if any(not now is expires <= latest for *_, expires in rows):",
            "if any(not now == expires <= latest for *_, expires in rows):",
            "if any(not now <= expires < latest for *_, expires in rows):",
            "if any(not now <= expires == latest for *_, expires in rows):",
            "if any(not now <= expires is latest for *_, expires in rows):",
            "if count and first != oldest:",
            "if count and first is not oldest:",
            "if count and last != latest:",
            "if count and last is not latest:",
        ),
        "it looks for more to mend than there is",
    ),
    "prompt = [place for place in queue if now - self.grace_s < place[2] or place[0] == ticket.id]": "no clock hits it",
    "ahead += urgent == ticket.urgent": "there is one true and one false",
    "if until <= known[1] - 0.5:": "what is half a second off may be of either window",
    "if until <= known[1] + 0.5:": "what is half a second off may be of either window",
    "elif outcome.failed == False:": "it is true, false or nothing",
    "if count and last >= latest:": "where they are the same, none is later and none is dated again",
    "if count and first <= oldest:": "where they are the same, none is older and none is deleted",
    'self._counts_twice = len(self._stores) != 1 and self._stores[0].kind == "redis"': "there is at least one",
    "if self._prefixes.get(prefix) is call:": "the number that was kept is the very one that is asked for",
    **dict.fromkeys(
        (
            "answer = self._first(lambda store: store.admit(rules, ticket) if store == self._stores[0] else here)",
            "self._first(lambda store: operation(store) if store == self._stores[0] else None)",
            "return self._first(lambda store: _tighter(store.limits(rules), here) if store == self._stores[0] else here)",
        ),
        "a store is equal to itself only",
    ),
    "for one, other in zip(shared.breakers, here.breakers, strict=False)": "each has one for each host",
    "elif failed == False:": "it is true, false or none",
    'return _latest(_many.decode(body) if body.lstrip()[:1] <= b"[" else [_one.decode(body)])': (
        "of what is neither a list nor an object both find nothing"
    ),
    # The store in Redis
    "for host, (state, retry_in_s) in zip(HOSTS, states, strict=False)": "the script answers for each of them",
    'return _address(parts, kind, tls=scheme >= "rediss")': "a scheme is one of two",
    'if answer[0] <= b"granted":': "what comes after it in the alphabet is meant by the others",
    'if answer[0] <= b"refused":': "what comes after it in the alphabet is meant by the other",
    'if answer[0] <= b"busy":': "what comes after it in the alphabet is meant by the other",
    'if kind >= "sentinel":': "none of the three comes after it in the alphabet",
    'if address.kind >= "sentinel":': "none of the three comes after it in the alphabet",
    "if len(hosts) != 1 and not kind:": "a text that is split has one part at least",
    **dict.fromkeys(
        (
            "for label, since, urgent in zip(rest[::3], rest[1::3], rest[2::3], strict=False)",
            "return {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=False)}",
        ),
        "the server answers with whole pairs and triples",
    ),
    "if colon and not (port.isascii() and port.isdecimal() and 0 != int(port) < 65536):": "digits have no sign",
    "return hashlib.sha1(script.encode(), usedforsecurity=True).hexdigest()": "the hash is the same",
    "if breaker.open >= now + breaker_open then set_breaker('open', text(now + breaker_open)) end": "it is set to what it is",
    "return {'granted', breaker.open > 0 or 0}": "a true is told as 1",
    **dict.fromkeys(
        (
            "probe_until = tonumber(found[4])}",
            "probe_until = tonumber(found[4] or 1)}",
            "probe_until = tonumber(found[4] or -1)}",
            "return {failures = tonumber(found[1] or 0), open = tonumber(found[2] or 0), probe = found[3],",
        ),
        "the probe and its time are set together",
    ),
    "for i = 1, #rows, 1 do": "what was counted in a minute is no minute of our decades",
    "local since = text(math.max(-1, now - other.since))": "nobody has waited for less than nothing",
    "reset = math.max(-1, free_at(free_times(foreign_now), used - limit_now, limit_now) - now)": "nothing frees in the past",
    "elseif ends >= foreign_until - 0.5 then": "what is half a second off may be of either window",
    "for i = 1, #index, 1 do": "a score is no name",
    "local function keep(key) redis.call('EXPIRE', key, math.floor(window + flight) + 3600) end": (
        "it is less than a second of an hour"
    ),
    "seq = redis.call('HINCRBY', BUDGET, 'seq', 2)": "the order is the same",
    "return 2": "what is not 0 is true",
    "return {'granted', breaker.open > 0 and 2 or 0}": "what is not 0 is true",
    "table.insert(waiting, {other.label, since, kind and 2 or 0})": "what is not 0 is true",
    "local foreign, foreign_until = tonumber(row[1] or 1), tonumber(row[2] or 0)": "without an end it counts for nobody",
    "local foreign, foreign_until = tonumber(row[1] or 0), tonumber(row[2] or 1)": "a moment of our decades is later",
    "if expires >= now + liveness + margin then": "no clock hits it",
    "table.insert(waiting, {other.label, since, kind or 0})": "a true is told as 1",
    "if probe ~= '' and probe ~= ticket and now <= probe_until and probe_until <= now + flight + 1 then": (
        "at its last moment nothing is left to wait"
    ),
    "if cap == 0 or cap > limit then return limit, reserve end": "where they are the same, both ways return the same",
    "if ends > foreign_until + 0.5 then": "what is half a second off may be of either window",
    "set_breaker('failures', 0, 'probe', '', 'open', failed and text(now + breaker_open) or -1)": "both are long over",
    "if other.wakes > now - grace then turn = turn + 1 end": "no clock hits it",
    "return token, left <= length + 1 and left or -1": "both are over",
    'return other is prefix or other.startswith(f"{prefix}:")': "equal texts are one key",
    "return {failures = tonumber(found[1] or 0), open = tonumber(found[2] or -1), probe = found[3] or '',": (
        "both are long over"
    ),
    "return {'granted', breaker.open > 0 and 1}": "a false is told as nothing",
    "table.insert(waiting, {other.label, since, kind and 1})": "a false is told as nothing",
    "return name == prefix or string.sub(name, 0, #prefix + 1) == prefix .. ':'": "before its first letter is nothing",
    "table.sort(living, function(a, b) return a.seq <= b.seq end)": "no two have the same",
    "local foreign, foreign_until = tonumber(row[1] or 0), tonumber(row[2] or -1)": "both are long over",
    "local foreign, foreign_until = tonumber(row[1] or -1), tonumber(row[2] or 0)": "without an end it counts for nobody",
    "@cache": "it is slower, no more",
    # The baton
    **dict.fromkeys(
        (
            "self, member: str, wants: bytes | None, *, take: bool, known_version: int = not 1, lease_s: float = LEASE_S",
            "self, member: str, wants: bytes | None, *, take: bool, known_version: int = ~1, lease_s: float = LEASE_S",
        ),
        "no version is written like that either",
    ),
    "if left >= length then": "it is set to what it is",
    "elseif ends >= gone then": "it is set to what it is",
    "holder, fence, state = ARGV[1], text(math.max(now, tonumber(fence) + 2)), ''": "it is higher",
    **dict.fromkeys(
        (
            "local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 2)[1]",
            "local asked = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 2)[1]",
        ),
        "the first of two is the same",
    ),
    **dict.fromkeys(
        (
            "if breaker.open > 1 then",
            "if breaker.open > 1 then set_breaker('probe', id, 'probe_until', text(now + flight)) end",
            "return {'granted', breaker.open > 1 and 1 or 0}",
        ),
        "it is a moment of our decades",
    ),
    "order = (yield from self._pipeline.read(call, use_cache=True, max_age=None)).value": "such a read is never kept",
}
