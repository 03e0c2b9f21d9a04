// SPDX-License-Identifier: MIT
// `lspci -t` and `-tv`: the tree as drawn. Columns carry it: a `+` or `\` continues the bus whose
// first `+` stands in the same column further up. A line of a fragment whose bus isn't drawn tells
// nothing.

import { busName } from "./address.js";
import type { FunctionDraft, MachineDraft, Place, Value } from "./draft.js";
import { idsOfText } from "./header-line.js";
import type { RootBusName } from "./topology.js";

const TREE_LINE = new RegExp(
  "^[ |]*(?:-\\+-|-|\\+-|\\\\-)" +
    "(?:\\[(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}\\]-|[01][0-9a-f]\\.[0-7](?:-\\[| {2}|$))",
);

/** Whether a line is one of a tree. */
export function isTreeLine(line: string): boolean {
  return TREE_LINE.test(line);
}

/** What continues in a column. */
type Branch =
  | { readonly kind: "hosts" }
  /** Several buses behind one bridge: those of its VFs. */
  | { readonly kind: "behind"; readonly bridge: FunctionDraft | null; readonly root: RootBusName }
  | {
      readonly kind: "bus";
      readonly domain: number;
      readonly bus: number;
      /** Null with `isRoot`: a root bus. Null without: the bridge is beyond the reader's bounds. */
      readonly bridge: FunctionDraft | null;
      readonly isRoot: boolean;
      readonly root: RootBusName;
    };

const NODE = /\[(?:([0-9a-f]{4,8}):)?([0-9a-f]{2})\]-/y;
const FUNCTION = /([01][0-9a-f])\.([0-7])/y;
const RANGE = /-\[([0-9a-f]{2})(?:-([0-9a-f]{2}))?\]-/y;

/** One tree, line by line. */
export class TreeReader {
  private readonly machine: MachineDraft;
  private readonly source: string;
  private place: Place;
  private isCut = false;
  private readonly columns = new Map<number, Branch>();

  constructor(machine: MachineDraft, source: string) {
    this.machine = machine;
    this.source = source;
    this.place = { source, line: null };
  }

  /**
   * Preconditions: `isTreeLine(line)`.
   * @param isCut the text ends in this line: its name may be half of one.
   * @returns false where it told nothing.
   */
  line(line: string, lineNumber: number, isCut: boolean): boolean {
    this.place = { source: this.source, line: lineNumber };
    this.isCut = isCut;
    let at = 0;
    while (line.charAt(at) === " " || line.charAt(at) === "|") at++;
    if (line.startsWith("-+-", at)) {
      this.columns.clear();
      this.columns.set(at + 1, { kind: "hosts" });
      return this.element(line, at + 3, { kind: "hosts" });
    }
    if (line.charAt(at) === "-") {
      this.columns.clear();
      return this.element(line, at + 1, { kind: "hosts" });
    }
    for (const column of this.columns.keys()) if (column > at) this.columns.delete(column);
    // A fragment may begin at one of several root buses.
    const branch = this.columns.get(at) ?? (line.charAt(at + 2) === "[" ? HOSTS : null);
    if (branch === null) {
      this.machine.notice("CUT_OFF", this.place, "a branch of a tree whose bus isn't shown");
      return false;
    }
    this.columns.set(at, branch);
    return this.element(line, at + 2, branch);
  }

  /** Follows one line to its end: functions in a row, each below the one before. */
  private element(line: string, at: number, branch: Branch): boolean {
    let hasTold = false;
    let next: { at: number; branch: Branch } | null = { at, branch };
    while (next !== null) {
      next =
        next.branch.kind === "bus"
          ? this.function(line, next.at, next.branch)
          : this.node(line, next.at, next.branch);
      hasTold ||= next !== null;
    }
    return hasTold || branch.kind === "bus";
  }

  /** `[0000:40]-…` */
  private node(
    line: string,
    at: number,
    branch: Exclude<Branch, { kind: "bus" }>,
  ): { at: number; branch: Branch } | null {
    NODE.lastIndex = at;
    const match = NODE.exec(line);
    if (match === null) return null;
    const domain = Number.parseInt(match[1] ?? "0", 16);
    const bus = Number.parseInt(match[2] as string, 16);
    const name = busName(domain, bus);
    const isRoot = branch.kind === "hosts";
    if (isRoot) {
      const root = this.machine.root(domain, bus, name);
      if (root === null) return null;
      root.isShown = true;
    }
    return this.inBus(line, NODE.lastIndex, {
      kind: "bus",
      domain,
      bus,
      bridge: isRoot ? null : branch.bridge,
      isRoot,
      root: isRoot ? name : branch.root,
    });
  }

  /** What a bus shows: `+-` opens several functions, `--` leads to the only one. */
  private inBus(line: string, at: number, branch: Branch): { at: number; branch: Branch } | null {
    if (line.startsWith("+-", at)) {
      this.columns.set(at, branch);
      return { at: at + 2, branch };
    }
    return line.startsWith("--", at) ? { at: at + 2, branch } : null;
  }

  /** `01.1-[43-53]--+-…` or `00.0  Name`. */
  private function(
    line: string,
    at: number,
    branch: Extract<Branch, { kind: "bus" }>,
  ): { at: number; branch: Branch } | null {
    FUNCTION.lastIndex = at;
    const match = FUNCTION.exec(line);
    if (match === null) return null;
    const draft = this.machine.open(
      {
        domain: branch.domain,
        bus: branch.bus,
        device: Number.parseInt(match[1] as string, 16),
        function: Number.parseInt(match[2] as string, 16),
      },
      this.place,
    );
    const end = FUNCTION.lastIndex;
    if (draft !== null) this.put(draft, branch);
    RANGE.lastIndex = end;
    const range = RANGE.exec(line);
    if (range === null) {
      const isNamed = line.startsWith("  ", end) && !this.isCut;
      if (draft !== null && isNamed) this.name(draft, line.slice(end + 2));
      return null;
    }
    const secondary = Number.parseInt(range[1] as string, 16);
    const subordinate = Number.parseInt(range[2] ?? (range[1] as string), 16);
    if (draft !== null) {
      this.tell(draft, "bridge.secondary", secondary);
      this.tell(draft, "bridge.subordinate", subordinate);
    }
    return this.behind(line, RANGE.lastIndex, draft, branch, secondary);
  }

  private behind(
    line: string,
    at: number,
    bridge: FunctionDraft | null,
    branch: Extract<Branch, { kind: "bus" }>,
    secondary: number,
  ): { at: number; branch: Branch } | null {
    if (line.charAt(at) !== "-") return null;
    if (line.startsWith("+-[", at + 1)) {
      const several: Branch = { kind: "behind", bridge, root: branch.root };
      this.columns.set(at + 1, several);
      return { at: at + 3, branch: several };
    }
    return this.inBus(line, at + 1, {
      kind: "bus",
      domain: branch.domain,
      bus: secondary,
      bridge,
      isRoot: false,
      root: branch.root,
    });
  }

  private put(draft: FunctionDraft, branch: Extract<Branch, { kind: "bus" }>): void {
    if (branch.isRoot) {
      this.tell(draft, "parent", null);
      this.tell(draft, "root", branch.root);
    } else if (branch.bridge !== null) {
      this.tell(draft, "parent", branch.bridge.address);
    }
  }

  private name(draft: FunctionDraft, text: string): void {
    const ids = idsOfText(text);
    if (ids.text !== "" && draft.deviceName === null) draft.tellName(ids.text);
    if (ids.vendor !== null) this.tell(draft, "vendor", ids.vendor);
    if (ids.device !== null) this.tell(draft, "device", ids.device);
  }

  private tell(draft: FunctionDraft, key: string, value: Value): void {
    this.machine.tell(draft, key, value, this.place);
  }
}

const HOSTS: Branch = { kind: "hosts" };
