# Reads the mails of a maildir with Python's email package, and prints one line of JSON for each: what a reader would see, and what is wrong with it.
import email, email.policy, email.utils, json, os, sys

folder = os.path.join(sys.argv[1], "new")
for name in sorted(os.listdir(folder)):
    raw = open(os.path.join(folder, name), "rb").read()
    m = email.message_from_bytes(raw, policy=email.policy.default)
    bodies = {k: m.get_body((k,)) for k in ("plain", "html")}
    defects = [str(d) for part in m.walk() for d in part.defects]
    defects += [h + ": " + str(d) for h in m.keys() for d in getattr(m[h], "defects", ())]
    sent = raw.split(b"\nDate: ")[-1]  # below what the server has put on top
    print(json.dumps({
        "to": m["Envelope-to"], "headers": {k.lower(): str(v) for k, v in m.items()},
        "addresses": {h: [[a.display_name, a.addr_spec] for a in m[h].addresses] for h in ("From", "To", "Reply-To") if m[h]},
        "at": int(email.utils.parsedate_to_datetime(m["Date"]).timestamp() * 1000),
        "plain": bodies["plain"] and bodies["plain"].get_content(), "html": bodies["html"] and bodies["html"].get_content(),
        "parts": [p.get_content_type() for p in m.walk()], "defects": defects,
        "longest": max(len(line) for line in sent.split(b"\n")), "ascii": raw.isascii()}))
