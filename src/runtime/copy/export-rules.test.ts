// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { ERRNO as E, IpAddress } from "../../base/index.js";
import { AccessRules, parseAccessRule, ServerSession } from "../../rtrs/index.js";
import { ExportRules } from "./export-rules.js";

const client = IpAddress.parse("192.0.2.1");
const local = IpAddress.parse("192.0.2.2");

function rulesOf(...texts: readonly string[]) {
  const specs = [
    { name: "open", path: "/srv/open", readOnly: false },
    { name: "secret", path: "/srv/secret", readOnly: false },
    { name: "fixed", path: "/srv/fixed", readOnly: true },
  ];
  const exports = new Map(specs.map((spec) => [spec.name, { spec }]));
  const said: string[] = [];
  const rules = new AccessRules(texts.map(parseAccessRule));
  const judge = new ExportRules(exports, rules, (_kind, text) => said.push(text));
  return { judge, said };
}

/** Of a session that has no path any more: what it asked for is still to be judged. */
const session = new ServerSession(1, client, local, "1");

describe("a folder that is asked for", () => {
  it("when the client has gone again → judged by where it came from", () => {
    const { judge, said } = rulesOf("192.0.2.1,volume=open");
    expect(session.clients).toEqual([]);
    expect(judge.find("open/a/b", session, true)).toMatchObject({ rest: "a/b" });
    expect(judge.find("secret", session, true)).toBe(E.EACCES);
    expect(judge.find("secret", session, false)).toBe(E.EACCES);
    expect(said).toEqual([
      'client 192.0.2.1 refused with EACCES when it writes export "secret": no rule is for it',
      'client 192.0.2.1 refused with EACCES when it reads export "secret": no rule is for it',
    ]);
  });

  it("to write: not by a rule for reading, nor where the folder is for reading → EROFS", () => {
    const { judge } = rulesOf("192.0.2.1,volume=open,ro", "192.0.2.1");
    expect(judge.find("open", session, true)).toBe(E.EROFS);
    expect(judge.find("open", session, false)).toMatchObject({ rest: "" });
    expect(judge.find("fixed", session, true)).toBe(E.EROFS);
    expect(judge.find("fixed/x", session, false)).toMatchObject({ rest: "x" });
  });

  it("that there is not, or by a path that leads out → refused", () => {
    const { judge } = rulesOf("any");
    expect(judge.find("nothing", session, false)).toBe(E.ENOENT);
    expect(judge.find("", session, false)).toBe(E.ENOENT);
    expect(judge.find("open/../secret", session, false)).toBe(E.EINVAL);
  });

  it("by a client that no rule is for → EACCES before all else", () => {
    const { judge } = rulesOf("192.0.2.9");
    expect(judge.admit(client)).toBe(E.EACCES);
    expect(rulesOf("192.0.2.0/24,volume=open,ro").judge.admit(client)).toBe(0);
  });
});
