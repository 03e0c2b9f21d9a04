// SPDX-License-Identifier: MIT
// Amounts and tables for people.

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** "4 KiB", "1.5 GiB". */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = Number.isInteger(value) || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** "7 %", "6.6 %", "<0.1 %". */
export function shareText(share: number): string {
  const percent = share * 100;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  const isWhole = percent >= 10 || Number.isInteger(percent);
  return `${isWhole ? Math.round(percent) : percent.toFixed(1)} %`;
}

/** Columns of equal width: the first to the left, the others to the right. */
export function columnsText(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}
