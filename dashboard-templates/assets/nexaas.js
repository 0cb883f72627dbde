// The little that htmx does not do: the menu on narrow screens, toasts, times in words, sorting a table, confirming, chat.
// No inline handlers and no eval, so a strict content security policy holds.
(() => {
  "use strict";
  const root = document.documentElement;

  // ---- Menu, dialogs, toasts ----
  const setMenu = (open) => {
    root.classList.toggle("nav-open", open);
    document.querySelectorAll("[data-menu-open]").forEach((b) => b.setAttribute("aria-expanded", String(open)));
  };
  const leave = (toast) => {
    toast.classList.add("leaving");
    setTimeout(() => toast.remove(), 200);
  };
  document.addEventListener("click", (event) => {
    const el = event.target.closest("[data-menu-open],[data-menu-close],[data-toast-close],[data-dialog-open],[data-dialog-close],[data-sort-column]");
    if (!el) return;
    if (el.matches("[data-menu-open]")) setMenu(!root.classList.contains("nav-open"));
    else if (el.matches("[data-menu-close]")) setMenu(false);
    else if (el.matches("[data-toast-close]")) leave(el.closest(".toast"));
    else if (el.matches("[data-dialog-open]")) document.getElementById(el.dataset.dialogOpen)?.showModal();
    else if (el.matches("[data-dialog-close]")) el.closest("dialog")?.close();
    else sortBy(el.closest("table"), Number(el.dataset.sortColumn));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && root.classList.contains("nav-open")) setMenu(false);
  });
  const toast = (tone, text) => {
    const box = document.getElementById("toasts");
    if (!box) return;
    const el = document.createElement("div");
    el.className = "toast " + tone;
    el.dataset.toast = "";
    const body = document.createElement("div");
    body.className = "toast-body";
    body.textContent = text;
    el.append(body);
    box.append(el);
    setTimeout(() => leave(el), 7000);
  };

  // ---- Times in words, kept current ----
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  const words = (at) => {
    const s = (at - Date.now()) / 1000, a = Math.abs(s);
    if (a < 45) return s > 5 ? "in a moment" : "just now";
    if (a < 2700) return relative.format(Math.round(s / 60), "minute");
    if (a < 79200) return relative.format(Math.round(s / 3600), "hour");
    if (a < 604800) return relative.format(Math.round(s / 86400), "day");
    return new Date(at).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
  };
  const times = (within) => {
    within.querySelectorAll("time[datetime]").forEach((el) => {
      const at = Date.parse(el.getAttribute("datetime"));
      if (Number.isNaN(at)) return;
      const text = words(at);
      if (el.textContent !== text) el.textContent = text;
      if (!el.title) el.title = new Date(at).toLocaleString();
    });
  };
  setInterval(() => times(document), 20000);

  // ---- Sorting a table by a column; remembered while the page lives, so that a refreshed widget stays sorted ----
  const sorted = new Map();
  const apply = (table) => {
    const state = sorted.get(table.dataset.sortable);
    if (!state || !table.tBodies[0]) return;
    const key = (row) => row.cells[state.column]?.dataset.sort ?? row.cells[state.column]?.textContent.trim() ?? "";
    const numeric = table.tHead?.rows[0]?.cells[state.column]?.dataset.kind === "number";
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return x === y ? 0 : x === "" ? 1 : -1;
      return state.sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true }));
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    [...table.tHead.rows[0].cells].forEach((cell, i) => {
      if (i === state.column) cell.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  };
  const sortBy = (table, column) => {
    if (!table) return;
    const before = sorted.get(table.dataset.sortable);
    sorted.set(table.dataset.sortable, { column, sign: before && before.column === column ? -before.sign : 1 });
    apply(table);
  };

  // ---- Chat: sends a message, shows the answer as it comes, and takes up a running turn after a reload ----
  class Chat {
    constructor(el) {
      this.el = el;
      this.log = el.querySelector(".chat-log");
      this.form = el.querySelector("form");
      this.text = el.querySelector("textarea");
      this.status = el.querySelector(".chat-status");
      this.agent = el.querySelector("[name=agent]");
      this.session = el.dataset.session || "";
      this.seq = Number(el.dataset.seq || 0);
      this.source = null;
      this.form.addEventListener("submit", (e) => { e.preventDefault(); this.send(); });
      this.text.addEventListener("keydown", (e) => {
        if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); this.send(); }
      });
      this.bottom();
      // After a reload: the running turn's text so far is stored up to `seq`; it comes first, then the rest.
      if (this.session && el.dataset.live === "true") { const upto = this.seq; this.seq = 0; this.follow(upto); }
    }
    bottom() { this.log.scrollTop = this.log.scrollHeight; }
    say(text) { this.status.textContent = text; }
    bubble(kind, who, text) {
      const box = document.createElement("div");
      box.className = "message " + kind;
      const name = document.createElement("span");
      name.className = "who";
      name.textContent = who;
      const body = document.createElement("div");
      body.className = "text plain";
      body.textContent = text;
      box.append(name, body);
      this.log.append(box);
      this.bottom();
      return box;
    }
    answer() {
      if (!this.live) {
        this.live = this.bubble("assistant live", this.agent.selectedOptions?.[0]?.textContent || this.agent.dataset.label || this.agent.value, "");
      }
      return this.live;
    }
    async send() {
      const message = this.text.value.trim();
      if (!message || this.busy) return;
      this.busy = true;
      this.bubble("user", "You", message);
      this.text.value = "";
      this.say("Sending…");
      const body = new URLSearchParams({ agent: this.agent.value, message, session_id: this.session });
      try {
        const reply = await fetch(this.form.action, { method: "POST", body, headers: { accept: "application/json" } });
        if (reply.status === 401) { location.assign("/login?next=" + encodeURIComponent(location.pathname)); return; }
        const answer = await reply.json().catch(() => ({}));
        if (!reply.ok) throw new Error(answer.detail || "The message could not be sent (" + reply.status + ").");
        this.session = answer.session_id;
        this.seq = answer.seq;
        this.el.dataset.session = this.session;
        const url = new URL(location.href);
        url.searchParams.set(this.el.dataset.param, this.session);
        history.replaceState(null, "", url);
        this.follow();
      } catch (error) {
        this.busy = false;
        this.text.value = message;
        this.bubble("failed", "Not sent", error instanceof TypeError ? "The server does not answer. Your message is kept in the box." : error.message);
        this.say("");
      }
    }
    follow(upto = 0) {
      this.busy = true;
      this.answer();
      this.say("Working on it…");
      this.source?.close();
      const source = new EventSource("/-/stream/chat/" + encodeURIComponent(this.session) + "?after=" + this.seq + "&upto=" + upto);
      this.source = source;
      const at = (e) => {
        const seq = Number(e.lastEventId);
        if (seq && seq <= this.seq) return false;
        if (seq) this.seq = seq;
        return true;
      };
      source.addEventListener("chunk", (e) => {
        if (!at(e)) return;
        const near = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
        this.answer().querySelector(".text").textContent += JSON.parse(e.data).content;
        if (near) this.bottom();
        this.say("Answering…");
      });
      source.addEventListener("done", (e) => {
        at(e);
        const data = JSON.parse(e.data);
        const text = this.answer().querySelector(".text");
        // The server has rendered and sanitised this markup.
        if (data.html) { text.innerHTML = data.html; text.className = "text prose"; }
        this.finish("");
      });
      source.addEventListener("failed", (e) => {
        at(e);
        const box = this.answer();
        const body = box.querySelector(".text");
        if (!body.textContent) { box.classList.add("failed"); body.textContent = JSON.parse(e.data).content; }
        else this.bubble("failed", "Stopped", JSON.parse(e.data).content);
        this.finish("");
      });
      source.addEventListener("idle", () => {
        if (this.live && !this.live.querySelector(".text").textContent) this.live.remove();
        this.finish("");
      });
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) {
          this.finish("The connection is gone. Reload the page to see the rest of the answer.");
        } else this.say("Connecting again…");
      };
    }
    finish(text) {
      this.source?.close();
      this.source = null;
      this.live?.classList.remove("live");
      this.live = null;
      this.busy = false;
      this.say(text);
      this.bottom();
    }
  }

  const ready = (within) => {
    times(within);
    within.querySelectorAll("table[data-sortable]").forEach(apply);
    within.querySelectorAll("[data-chat]").forEach((el) => { if (!el.chat) el.chat = new Chat(el); });
    within.querySelectorAll("[data-toast]").forEach((el) => {
      if (el.timer) return;
      el.timer = setTimeout(() => leave(el), el.classList.contains("bad") ? 15000 : 7000);
    });
    within.querySelectorAll("pre[data-follow]").forEach((el) => { el.scrollTop = el.scrollHeight; });
  };
  document.addEventListener("htmx:afterSettle", (event) => ready(event.detail.elt?.parentElement || document));
  document.addEventListener("htmx:oobAfterSwap", () => ready(document));
  document.addEventListener("htmx:responseError", (event) => {
    toast("bad", "That did not work: the server answered " + event.detail.xhr.status + ". Try again in a moment.");
  });
  document.addEventListener("htmx:sendError", () => toast("bad", "The server does not answer. Check the connection."));
  // Live marks of the stream, for the eye only.
  const live = (state) => document.querySelectorAll("[data-live-mark]").forEach((el) => { el.dataset.liveMark = state; });
  document.addEventListener("htmx:sseOpen", () => live("on"));
  document.addEventListener("htmx:sseError", () => live("off"));
  document.addEventListener("change", (event) => {
    const el = event.target.closest("select[data-go]");
    if (el) location.assign(el.value);
  });
  ready(document);
})();
