// Another number of regions, cut from the tree of their leaves, as core/regions/cutting.py does; tests compare the two.

/** Return the label of each leaf when the first leaves of a tree are cut into a number of regions. */
export function cutTree(parents, number) {
  const labels = [];
  for (const [leaf, parent] of parents.entries()) labels.push(leaf < number ? leaf : labels[parent]);
  return labels;
}

/**
 * Return {regions, owners} of a number of regions: what is known of each region, and the label of each leaf.
 * @param {object} content what the node sent
 * @param {number} number of regions; 0 takes them as they came
 */
export function cutRegions({ regions, leaves }, number) {
  if (!leaves) return { regions, owners: null };
  if (!number) return { regions, owners: leaves.owners };
  const owners = leaves.owners.map((_owner, leaf) => leaf);
  owners.splice(0, leaves.parents.length, ...cutTree(leaves.parents, number));
  const names = new Map(regions.map(({ label, name }) => [membersOf(leaves.owners, label).join(), name]));
  const cut = [...new Set(owners)].sort((a, b) => a - b).map((label) => {
    const members = membersOf(owners, label);
    const fallback = `${label < leaves.parents.length ? "region" : "new"} ${label}`;
    const name = names.get(members.join()) ?? fallback;
    return joinRows(members.map((leaf) => leaves.rows[leaf]), label, name, leaves.rows[label].color);
  });
  return { regions: cut, owners };
}

function membersOf(owners, label) {
  return owners.flatMap((owner, leaf) => (owner === label ? [leaf] : []));
}

/** Return what is known of a region from its leaves; its point is that of the largest. */
function joinRows(rows, label, name, color) {
  const seen = rows.filter((row) => row.first !== null);
  const largest = rows.reduce((best, row) => (row.share > best.share ? row : best));
  return {
    ...largest,
    label,
    name,
    color,
    share: rows.reduce((sum, row) => sum + row.share, 0),
    first: seen.length ? Math.min(...seen.map((row) => row.first)) : null,
    last: seen.length ? Math.max(...seen.map((row) => row.last)) : null,
  };
}

/** Return the labels of pixels by those of their leaves. */
export function groupPixels(pixels, owners) {
  return owners ? pixels.map((leaf) => owners[leaf]) : pixels;
}
