/** What became of each word of a text: kept, removed or added. */
export interface Piece {
  text: string;
  kind: 'same' | 'removed' | 'added';
}

const words = (text: string) => text.match(/\w+|\s+|[^\w\s]/g) ?? [];

/** The difference of two texts by words, from their longest common subsequence. */
export function difference(before: string, after: string): Piece[] {
  const [a, b] = [words(before), words(after)];
  const longest = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const pieces: Piece[] = [];
  const put = (text: string, kind: Piece['kind']) => {
    const last = pieces[pieces.length - 1];
    if (last?.kind === kind) last.text += text;
    else pieces.push({ text, kind });
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      put(a[i], 'same');
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && longest[i + 1][j] >= longest[i][j + 1])) {
      put(a[i], 'removed');
      i += 1;
    } else {
      put(b[j], 'added');
      j += 1;
    }
  }
  return pieces;
}
