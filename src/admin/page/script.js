'use strict';
(() => {
  const root = document.documentElement, told = document.getElementById('told');
  const box = document.getElementById('ask'), form = document.getElementById('ask-form');
  root.classList.add('js');
  const KEY = 'rillway-token', EVERY = 1000, LATE = 5000;
  const token = () => sessionStorage.getItem(KEY);
  const headers = () => token() ? { Authorization: 'Bearer ' + token() } : {};
  const tell = text => { told.textContent = text; };
  let lastSeen = Date.now(), shown = '', lost = false, declined = false;

  // Open consumers stay open, and what has the focus keeps it.
  const take = fresh => {
    const old = document.getElementById('status');
    const open = new Set([...old.querySelectorAll('details[open]')].map(d => d.dataset.key));
    const focus = document.activeElement && document.activeElement.dataset.focus;
    fresh.querySelectorAll('details').forEach(d => { d.open = open.has(d.dataset.key); });
    old.replaceWith(fresh);
    if (focus) {
      const again = [...fresh.querySelectorAll('[data-focus]')].find(e => e.dataset.focus === focus);
      if (again) again.focus({ preventScroll: true });
    }
  };
  const refresh = async () => {
    const answer = await fetch('/', { headers: headers(), cache: 'no-store', signal: AbortSignal.timeout(LATE) });
    if (answer.status === 401) {
      const wrong = token();
      sessionStorage.removeItem(KEY);
      if (await ask(wrong ? 'That is not the token any more.' : 'This server shows its state only with the token.')) return;
      declined = true;
      return tell('Reload the page to enter the token.');
    }
    const text = await answer.text();
    lastSeen = Date.now();
    if (lost) { lost = false; tell(''); }
    document.title = (/<title>(.*?)<\/title>/.exec(text) || [])[1] || document.title;
    // Only that part: the style and the script of the answer have another nonce.
    const part = text.slice(text.indexOf('<main'), text.indexOf('</main>') + 7);
    const status = new DOMParser().parseFromString(part, 'text/html').getElementById('status');
    if (!status || status.outerHTML === shown) return;
    // Text that somebody is selecting stays.
    const selection = getSelection();
    if (selection && !selection.isCollapsed) return;
    shown = status.outerHTML;
    take(document.adoptNode(status));
  };
  const turn = async () => {
    if (!document.hidden && !box.open && !declined) {
      try { await refresh(); } catch (error) {
        const seconds = Math.round((Date.now() - lastSeen) / 1000);
        if (seconds >= 3) { lost = true; tell('No answer for ' + seconds + ' s: what is shown is as old as that.'); }
      }
    }
    setTimeout(turn, EVERY);
  };

  let resolveToken = null;
  const ask = why => new Promise(resolve => {
    document.getElementById('ask-why').textContent = why;
    resolveToken = resolve;
    if (!box.open) box.showModal();
  });
  form.addEventListener('submit', () => {
    const value = document.getElementById('ask-token').value.trim();
    document.getElementById('ask-token').value = '';
    if (value) sessionStorage.setItem(KEY, value);
    if (resolveToken) { resolveToken(Boolean(value)); resolveToken = null; }
  });
  box.addEventListener('cancel', () => { if (resolveToken) { resolveToken(false); resolveToken = null; } });
  document.getElementById('ask-no').addEventListener('click', () => {
    box.close();
    if (resolveToken) { resolveToken(false); resolveToken = null; }
  });

  // Sends a command, with the token if one is needed; null if it was not sent, which it then tells.
  const send = async (what, name, verb, body) => {
    const path = '/api/v1/consumers/' + encodeURIComponent(name) + '/' + verb;
    for (;;) {
      const answer = await fetch(path, { method: 'POST', headers: headers(), body });
      const said = await answer.json().catch(() => ({}));
      if (answer.status !== 401) return { answer, said };
      const wrong = token();
      sessionStorage.removeItem(KEY);
      if (await ask(wrong ? 'That was not the token.' : 'Commands need the token of this server.')) continue;
      tell(what + ' was not sent, because it needs the token.');
      return null;
    }
  };
  const act = async (name, verb, body) => {
    const what = name + ': ' + verb;
    tell(what + ' …');
    try {
      const sent = await send(what, name, verb, body);
      if (!sent) return;
      const { answer, said } = sent;
      if (!answer.ok) return tell(what + ' failed: ' + (said.error || answer.status));
      tell(what + (answer.status === 202 ? ' accepted, and not finished yet' : ' done') + (said.note ? ': ' + said.note : '') + '.');
    } catch (error) { tell(what + ' failed: ' + error.message); }
  };

  const at = id => document.getElementById(id);
  const move = { name: '', looked: '', skips: false };
  // An offset may be larger than numbers here can be exactly, so it stays text.
  const target = () => {
    const to = at('move-to').value, stream = at('move-stream').value;
    let where = JSON.stringify(to);
    if (to === 'offset') {
      const offset = at('move-offset').value.replaceAll(/[\s,.]/g, '');
      if (!/^\d{1,20}$/.test(offset)) return null;
      where = '{"offset":' + BigInt(offset) + '}';
    } else if (to === 'timestamp') {
      const time = new Date(at('move-timestamp').value);
      if (isNaN(time)) return null;
      where = JSON.stringify({ timestamp: time.toISOString() });
    }
    return '{"to":' + where + (stream ? ',"stream":' + JSON.stringify(stream) : '') + ',"dry_run":';
  };
  const count = (range, does) => (range.is_exact ? '' : 'Up to ') + range.messages.toLocaleString('en') +
    (range.messages === 1 ? ' message ' : ' messages ') + (range.messages === 1 ? 'is ' : 'are ') + does;
  const describe = one => {
    const from = one.from_offset ?? 'a position that is not known';
    const says = [one.stream + ': goes on at offset ' + one.to_offset +
      (one.from_offset === one.to_offset ? ', as it does already.' : ' instead of ' + from + '.')];
    if (one.read_again) says.push(count(one.read_again, 'read again') + ': ' + one.what_is_read_again + '.');
    if (one.skipped) says.push(count(one.skipped, 'skipped, and never reach the sink') + '.');
    return says.join(' ').replaceAll('..', '.');
  };
  const unlook = () => {
    move.looked = '';
    at('move-do').hidden = true;
    at('move-what').textContent = '';
    document.querySelectorAll('#move [data-for]').forEach(e => { e.hidden = e.dataset.for !== at('move-to').value; });
  };
  const look = async () => {
    const order = target(), what = at('move-what');
    if (!order) { what.textContent = 'That is not ' + (at('move-to').value === 'offset' ? 'an offset.' : 'a time.'); return; }
    what.textContent = 'Looking …';
    const sent = await send(move.name + ': a look', move.name, 'seek', order + 'true}');
    if (target() !== order || !at('move').open) return;
    if (!sent || !sent.answer.ok) { what.textContent = sent ? sent.said.error || sent.answer.status : ''; return; }
    const moves = sent.said.moves;
    what.textContent = moves.map(describe).join('\n');
    move.looked = order;
    move.skips = moves.some(one => one.skipped?.messages || one.from_offset === null);
    at('move-do').textContent = move.skips ? 'Skip messages, and move it' : 'Move it';
    at('move-do').hidden = false;
  };
  const openMove = button => {
    move.name = button.dataset.name;
    at('move-title').textContent = 'Move ' + move.name;
    const names = [...button.closest('details').querySelectorAll('tbody th')].map(th => th.textContent);
    at('move-stream').replaceChildren(...['', ...names].map(name => new Option(name || 'all of them', name)));
    at('move-which').hidden = !names.length;
    unlook();
    at('move').showModal();
  };
  at('move-form').addEventListener('submit', event => {
    event.preventDefault();
    look().catch(error => { at('move-what').textContent = error.message; });
  });
  at('move-form').addEventListener('input', unlook);
  at('move-do').addEventListener('click', () => {
    const order = move.looked;
    at('move').close();
    if (order) act(move.name, 'seek', order + 'false,"may_skip":' + move.skips + '}');
  });

  let skipped = {};
  const openSkip = button => {
    skipped = { ...button.dataset };
    at('skip-what').textContent = 'The message at offset ' + skipped.skip + ' of ' + (skipped.stream || skipped.name) +
      ', at which ' + skipped.name + ' has halted, never reaches the sink. The consumer then goes on. At the next such message it halts again.';
    at('skip-letter').checked = false;
    at('skip').showModal();
  };
  at('skip-form').addEventListener('submit', () => {
    const { skip, name, stream } = skipped;
    act(name, 'skip', '{"offset":' + skip + (stream ? ',"stream":' + JSON.stringify(stream) : '') +
      ',"dead_letter":' + at('skip-letter').checked + '}');
  });
  ['move', 'skip'].forEach(id => at(id + '-no').addEventListener('click', () => at(id).close()));

  document.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.verb) act(button.dataset.name, button.dataset.verb);
    else if ('move' in button.dataset) openMove(button);
    else if (button.dataset.skip) openSkip(button);
  });
  turn();
})();
