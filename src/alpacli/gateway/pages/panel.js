// The dashboard. Everything shown is text content, never markup; the token stays in this tab.
"use strict";

const API = "/api/v1/broker";
const $ = (id) => document.getElementById(id);
const KEPT = 12;
let token = sessionStorage.getItem("alpacli.token") || "";
let socket = null;
let retry = 0;
let waiting = new Map();
let symbols = JSON.parse(localStorage.getItem("alpacli.symbols") || '["AAPL","MSFT"]');
const ticks = new Map();
let drawing = false;
let refreshing = 0;
let halted = false;
let period = { period: "1D", timeframe: "5Min" };

// ------------------------------------------------------------------------------------------------------ numbers

const money = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const plain = new Intl.NumberFormat("en-US", { maximumFractionDigits: 9 });
const percent = new Intl.NumberFormat("en-US", { style: "percent", minimumFractionDigits: 2, signDisplay: "exceptZero" });
const price = (value) => (value == null ? "" : new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 6 }).format(value));
const signed = (value) => (value > 0 ? "+" : "") + money.format(value);
const tone = (value) => (value > 0 ? "good" : value < 0 ? "bad" : "");
const clockTime = (text) => (text ? new Date(text).toLocaleTimeString() : "");

function cell(text, className) {
  const made = document.createElement("td");
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function rows(body, list, cells, empty) {
  body.replaceChildren(...list.map((item) => {
    const row = document.createElement("tr");
    row.append(...cells(item));
    return row;
  }));
  if (!list.length) {
    const row = document.createElement("tr");
    const only = cell(empty);
    only.colSpan = 20;
    row.append(only);
    body.append(row);
  }
}

// --------------------------------------------------------------------------------------------------------- asking

async function ask(path, options = {}) {
  const answer = await fetch(API + path, { ...options, cache: "no-cache", headers: { Authorization: `Bearer ${token}` } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) signOut(body.error?.message || "The token is not valid.");
  if (!answer.ok) throw new Error(`${body.error?.message || answer.status}${body.error?.hint ? `. ${body.error.hint}` : ""}`);
  return body.data;
}

function problem(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

async function refresh() {
  if (!token) return;
  const numbered = ++refreshing;
  const parts = await Promise.allSettled([
    ask("/account").then(showAccount),
    ask("/positions").then(showPositions),
    ask("/orders?status=all&limit=20").then(showOrders),
    ask("/halt").then(showHalt),
  ]);
  if (numbered !== refreshing || !token) return;
  const failed = parts.find((part) => part.status === "rejected");
  problem(failed && failed.reason);
}

async function refreshGateway() {
  if (!token) return;
  const limits = await ask("/limits");
  $("budget").max = limits.limit;
  $("budget").value = limits.used;
  $("budget-said").textContent = `${limits.used} of ${limits.limit} used${limits.waiting ? `, ${limits.waiting} waiting` : ""}`;
  const failing = Object.keys(limits.breakers).filter((host) => limits.breakers[host] !== "closed");
  $("breaker").textContent = failing.map((host) => `The circuit breaker for ${host} is ${limits.breakers[host]}.`).join(" ");
  const cache = await ask("/cache/stats");
  const asked = cache.hits + cache.misses;
  $("cache").value = asked ? cache.hits / asked : 0;
  $("cache-said").textContent = asked ? `${Math.round((100 * cache.hits) / asked)} % of ${plain.format(asked)}` : "not asked yet";
  const status = await ask("/stream/status");
  rows($("clients"), status.clients, (client) => [
    cell(client.name),
    cell(Object.keys(client.feeds).join(", ")),
    cell(plain.format(client.sent)),
    cell(plain.format(client.conflated)),
  ], "nobody");
}

// -------------------------------------------------------------------------------------------------------- showing

function showAccount(account) {
  const day = account.equity - account.last_equity;
  $("account-number").textContent = account.account_number;
  const facts = [
    ["Equity", money.format(account.equity)],
    ["Day P&L", `${signed(day)} (${percent.format(account.last_equity ? day / account.last_equity : 0)})`, tone(day)],
    ["Cash", money.format(account.cash)],
    ["Buying power", money.format(account.buying_power)],
  ];
  $("account").replaceChildren(...facts.map(([name, value, className]) => {
    const pair = document.createElement("div");
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    told.className = className || "";
    pair.append(term, told);
    return pair;
  }));
}

function showPositions(positions) {
  rows($("positions"), positions, (one) => [
    cell(one.symbol),
    cell(plain.format(one.qty)),
    cell(price(one.current_price)),
    cell(money.format(one.market_value)),
    cell(`${signed(one.unrealized_pl)} (${percent.format(one.unrealized_plpc)})`, tone(one.unrealized_pl)),
    cell(signed(one.unrealized_intraday_pl), tone(one.unrealized_intraday_pl)),
  ], "no positions");
}

function showOrders(orders) {
  rows($("orders"), orders, (one) => [
    cell(one.symbol || one.order_class),
    cell(one.side || ""),
    cell(one.type || ""),
    cell(one.qty != null ? plain.format(one.qty) : money.format(one.notional)),
    cell(plain.format(one.filled_qty || 0)),
    cell(price(one.filled_avg_price ?? one.limit_price ?? one.stop_price)),
    cell(one.status.replaceAll("_", " ")),
    cell(clockTime(one.submitted_at || one.created_at)),
  ], "no orders");
}

function showHalt(state) {
  halted = state.halted;
  $("halted").hidden = !halted;
  $("halted").textContent = halted ? `Trading is halted${state.reason ? `: ${state.reason}` : ""}` : "";
  $("halt").textContent = halted ? "Resume trading" : "Halt trading";
  $("halt").dataset.halted = String(halted);
}

async function showEquity() {
  const curve = await ask(`/history/portfolio?period=${period.period}&timeframe=${period.timeframe}`);
  const points = curve.timestamp.map((at, i) => [at, curve.equity[i]]).filter(([, value]) => value != null && value !== 0);
  const drawn = $("equity");
  drawn.replaceChildren();
  if (points.length < 2) {
    $("equity-said").textContent = "nothing to draw yet";
    return;
  }
  const base = curve.base_value || points[0][1];
  const values = points.map(([, value]) => value).concat(base);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const x = (at) => (600 * (at - points[0][0])) / (points.at(-1)[0] - points[0][0] || 1);
  const y = (value) => 170 - (160 * (value - low)) / (high - low || 1);
  drawn.append(
    shape("line", { class: "base", x1: 0, x2: 600, y1: y(base), y2: y(base) }),
    shape("polyline", { class: "line", points: points.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }),
  );
  const change = points.at(-1)[1] - base;
  const told = `${money.format(points.at(-1)[1])}, ${signed(change)} since ${money.format(base)}; between ${money.format(low)} and ${money.format(high)}`;
  $("equity-said").textContent = told;
  drawn.setAttribute("aria-label", `Equity curve: ${told}`);
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function drawTicks() {
  drawing = false;
  const body = $("ticks");
  const known = new Map([...body.rows].map((row) => [row.dataset.symbol, row]));
  for (const symbol of symbols) {
    const tick = ticks.get(symbol) || {};
    const texts = [symbol, price(tick.last), quote(tick.bid, tick.bidSize), quote(tick.ask, tick.askSize), clockTime(tick.at)];
    let row = known.get(symbol);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.symbol = symbol;
      row.append(...texts.map((text) => cell(text)), removal(symbol));
      body.append(row);
    }
    texts.forEach((text, place) => { if (row.cells[place].textContent !== text) row.cells[place].textContent = text; });
    known.delete(symbol);
  }
  for (const row of known.values()) row.remove();
}

const quote = (value, size) => (value == null ? "" : `${price(value)} × ${plain.format(size)}`);

function removal(symbol) {
  const made = document.createElement("td");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "×";
  button.setAttribute("aria-label", `Remove ${symbol}`);
  button.addEventListener("click", () => {
    symbols = symbols.filter((other) => other !== symbol);
    choose("unsubscribe", [symbol]);
    $("symbol").focus();
  });
  made.append(button);
  return made;
}

function choose(action, changed) {
  localStorage.setItem("alpacli.symbols", JSON.stringify(symbols));
  if (socket && socket.readyState === WebSocket.OPEN && changed.length) {
    socket.send(JSON.stringify({ action, symbols: changed, streams: ["trades", "quotes"] }));
  }
  drawTicks();
}

// ---------------------------------------------------------------------------------------------------------- live

function listen() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(`${scheme}//${location.host}${API}/stream`, ["alpacli", `bearer.${token}`]);
  socket = opened;
  opened.addEventListener("open", () => {
    retry = 0;
    waiting = new Map([["updates", "connecting"]]); // live is said when an order's fate could not be missed any more
    showConnection();
    opened.send(JSON.stringify({ action: "subscribe", symbols: [], streams: ["trade_updates"] }));
    if (symbols.length) choose("subscribe", symbols);
  });
  opened.addEventListener("message", (event) => {
    const heard = JSON.parse(event.data);
    for (const message of Array.isArray(heard) ? heard : [heard]) hear(message);
  });
  opened.addEventListener("close", (event) => {
    if (socket !== opened || !token) return;
    retry = Math.min(retry + 1, 6);
    const seconds = 2 ** (retry - 1);
    $("connection").textContent = `connection lost${event.reason ? `: ${event.reason}` : ""}; again in ${seconds} s`;
    setTimeout(() => { if (socket === opened && token) listen(); }, 1000 * seconds);
  });
}

function showConnection() {
  $("connection").textContent = waiting.size ? [...waiting.values()].join("; ") : "live";
}

function feedIs(feed, state) {
  if (state) waiting.set(feed, state);
  else if (waiting.delete(feed)) refresh(); // what happened meanwhile was told to nobody
  showConnection();
}

function hear(message) {
  const tick = ticks.get(message.symbol) || {};
  if (message.type === "trade") {
    ticks.set(message.symbol, { ...tick, last: message.price, at: message.timestamp });
  } else if (message.type === "quote") {
    ticks.set(message.symbol, { ...tick, bid: message.bid_price, bidSize: message.bid_size, ask: message.ask_price, askSize: message.ask_size, at: message.timestamp });
  } else if (message.type === "trade_update") {
    told(message);
    return;
  } else if (message.type === "subscription" || message.type === "live") {
    feedIs(message.feed, "");
    return;
  } else if (message.type === "reconnecting") {
    feedIs(message.feed, `${message.feed}: ${message.reason}`);
    return;
  } else if (message.type === "error") {
    if (message.symbols) symbols = symbols.filter((symbol) => !message.symbols.includes(symbol));
    problem(new Error(message.message || message.msg || "the stream refused something"));
    return;
  } else {
    return;
  }
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(drawTicks);
  }
}

function told(update) {
  const order = update.order;
  const filled = update.qty != null ? ` ${plain.format(update.qty)} at ${price(update.price)}` : "";
  const item = document.createElement("li");
  item.textContent = `${clockTime(update.timestamp)} ${order.symbol || ""} ${order.side || ""} ${update.event.replaceAll("_", " ")}${filled}`;
  $("events").prepend(item);
  while ($("events").children.length > KEPT) $("events").lastChild.remove();
  clearTimeout(told.soon);
  told.soon = setTimeout(refresh, 150);
}

// --------------------------------------------------------------------------------------------------------- signing

async function signIn() {
  try {
    await ask("/account").then(showAccount);
  } catch (error) {
    if (token) signOut(error.message);
    return;
  }
  sessionStorage.setItem("alpacli.token", token);
  $("sign-in").hidden = true;
  $("content").hidden = $("actions").hidden = false;
  $("content").focus();
  drawTicks();
  listen();
  refresh();
  showEquity().catch(problem);
  refreshGateway().catch(problem);
}

function signOut(why) {
  token = "";
  sessionStorage.removeItem("alpacli.token");
  if (socket) socket.close();
  socket = null;
  $("content").hidden = $("actions").hidden = $("halted").hidden = true;
  $("sign-in").hidden = false;
  $("connection").textContent = "not signed in";
  if (typeof why === "string") $("said").textContent = why;
  $("token").value = "";
  $("token").focus();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  signIn();
});
$("sign-out").addEventListener("click", () => signOut("Signed out."));
$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const symbol = $("symbol").value.trim().toUpperCase();
  $("symbol").value = "";
  if (!symbol || symbols.includes(symbol)) return;
  symbols = [...symbols, symbol];
  choose("subscribe", [symbol]);
});
$("periods").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const other of $("periods").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  period = { period: button.dataset.period, timeframe: button.dataset.timeframe };
  showEquity().catch(problem);
});
$("halt").addEventListener("click", () => {
  $("confirm-title").textContent = halted ? "Resume trading?" : "Halt trading?";
  $("confirm-text").textContent = halted
    ? "New orders are let through again, here and for everybody who shares this account."
    : "New orders are refused, here and for everybody who shares this account, until trading is resumed. Cancels and closes pass.";
  $("reason-row").hidden = halted;
  $("confirm-yes").textContent = halted ? "Resume trading" : "Halt trading";
  $("confirm").returnValue = "no";
  $("confirm").showModal();
});
$("confirm").addEventListener("close", async () => {
  if ($("confirm").returnValue !== "yes") return;
  const reason = encodeURIComponent($("reason").value.trim());
  $("reason").value = "";
  try {
    showHalt(await ask(halted ? "/halt" : `/halt?reason=${reason}`, { method: halted ? "DELETE" : "POST" }));
    problem(null);
  } catch (error) {
    problem(error);
  }
});

setInterval(() => { if (!document.hidden) refresh(); }, 10000);
setInterval(() => { if (!document.hidden) refreshGateway().catch(problem); }, 5000);
setInterval(() => { if (!document.hidden && token) showEquity().catch(problem); }, 60000);
if (token) signIn();
else $("token").focus();
