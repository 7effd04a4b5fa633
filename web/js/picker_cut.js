// Another number of regions, cut from the tree of their leaves, as core/regions/cutting.py does; tests compare the two.

/** Return the label of each leaf when the first leaves of a tree are cut into a number of regions. */
export function cutTree(parents, number) {
  const labels = [];
  for (const [leaf, parent] of parents.entries()) labels.push(leaf < number ? leaf : labels[parent]);
  return labels;
}

/** Return those of some leaves that the tree's next cut splits off from the others; none of a single one. */
export function findSplit(parents, leaves) {
  const [, second] = [...leaves].sort((a, b) => a - b);
  if (second === undefined) return [];
  const labels = cutTree(parents, second + 1);
  return leaves.filter((leaf) => labels[leaf] === second);
}

/**
 * Return {regions, owners}: what is known of each region, and the label of each leaf.
 * @param {object} content what the node sent
 * @param {number} number of regions; 0 takes them as they came
 * @param {number[]} splits leaves whose regions are split in two, in order
 */
export function cutRegions({ regions, leaves }, number, splits = []) {
  if (!leaves) return { regions, owners: null };
  const { parents, rows } = leaves;
  let owners = leaves.owners;
  let names = new Map(regions.map(({ label, name }) => [label, name]));
  const change = (next) => {
    names = keepNames(owners, next, names, parents.length);
    owners = next;
  };
  if (number) {
    const labels = cutTree(parents, number);
    change(owners.map((_owner, leaf) => labels[leaf] ?? leaf));
  }
  for (const leaf of splits) change(splitRegion(parents, owners, owners[leaf]));
  const known = new Map(regions.map((region) => [membersOf(leaves.owners, region.label).join(), region]));
  const cut = [...names.keys()].sort((a, b) => a - b).map((label) => {
    const members = membersOf(owners, label);
    const same = known.get(members.join());
    const color = same?.label === label ? same.color : rows[label].color;
    return { ...joinRows(members.map((leaf) => rows[leaf])), ...same, label, name: names.get(label), color };
  });
  return { regions: cut, owners };
}

/** Return the names of regions after a change of owners: a region of the same leaves keeps its own. */
function keepNames(before, after, names, numFirst) {
  const known = new Map([...names].map(([label, name]) => [membersOf(before, label).join(), name]));
  const fallback = (label) => `${label < numFirst ? "region" : "new"} ${label}`;
  return new Map(after.map((label) => [label, known.get(membersOf(after, label).join()) || fallback(label)]));
}

/** Return owners of which one region is two, if it has more than one leaf. */
function splitRegion(parents, owners, label) {
  const inside = membersOf(owners, label).filter((leaf) => leaf < parents.length);
  const part = findSplit(parents, inside);
  const free = [...Array(255).keys()].filter((candidate) => !owners.includes(candidate));
  if (!part.length || !free.length) return owners;
  const target = free.includes(part[0]) ? part[0] : free[0];
  return owners.map((owner, leaf) => (part.includes(leaf) ? target : owner));
}

function membersOf(owners, label) {
  return owners.flatMap((owner, leaf) => (owner === label ? [leaf] : []));
}

/** Return what is known of a region from its leaves; its point is that of the largest, ``leaf``. */
function joinRows(rows) {
  const seen = rows.filter((row) => row.first !== null);
  const largest = rows.reduce((best, row) => (row.share > best.share ? row : best));
  return {
    ...largest,
    leaf: largest.label,
    share: rows.reduce((sum, row) => sum + row.share, 0),
    first: seen.length ? Math.min(...seen.map((row) => row.first)) : null,
    last: seen.length ? Math.max(...seen.map((row) => row.last)) : null,
  };
}

/** Return the labels of pixels by those of their leaves. */
export function groupPixels(pixels, owners) {
  return owners ? pixels.map((leaf) => owners[leaf]) : pixels;
}
