"""The web console: what the machine is doing, for a person, and the few things to do about it.

```
GET  /, /console/…        frame ─▶ sessions (who) ─▶ a look: one read-only transaction ─▶ template
POST /console/…           frame ─▶ sessions, form ─▶ an action: a service ─▶ back to the page
GET  /console/live        live: server-sent events ─▶ console.js fetches the page again
GET  /console/static/…    one style sheet, one script, one icon
```

1. Pages ask what the command line and the API ask (torghut.storage.queries, pnl, insights), and
   actions are theirs (torghut.services.operator, order_requests, tie_out), under the actor
   `console:<who>` and a reason.
2. Everything works without the script: links, and plain forms.
3. Nothing here is reached without a session where tokens are configured (torghut.web.gate lets
   these paths pass, frame asks).
"""
