// Line icons, 16 by 16, in the colour of the text.
const PATHS = {
  audience: 'M6 7.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M10.5 2.800a2.5 2.5 0 0 1 0 4.400M12 9.900c1.6.5 2.5 1.8 2.5 3.6',
  job: 'M8 14.500a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13ZM6.5 5.500l4 2.5-4 2.500v-5Z',
  schedule: 'M2.5 3.500h11v10h-11zM2.5 6.500h11M5.5 1.800v3M10.5 1.800v3',
  export: 'M8 10V2m0 0L5 5m3-3 3 3M2.5 9.500v4h11v-4',
  data: 'M8 5.500c3 0 5.5-.8 5.5-1.800S11 2 8 2s-5.5.8-5.5 1.700S5 5.5 8 5.500ZM2.5 3.700V12c0 1 2.5 1.9 5.5 1.900s5.5-.9 5.5-1.900V3.700M2.5 8c0 1 2.5 1.8 5.5 1.800s5.5-.8 5.5-1.8',
  person: 'M8 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2.5 14c.3-2.6 2.5-4 5.5-4s5.2 1.4 5.5 4',
  code: 'm5 4.5-3.5 3.500L5 11.500M11 4.500l3.5 3.5-3.5 3.500M9.3 2.5 6.7 13.5',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.7 10.700l3.3 3.3',
  plus: 'M8 3v10M3 8h10',
  close: 'm4 4 8 8m0-8-8 8',
  down: 'm4.5 6.5 3.5 3.5 3.5-3.5',
  right: 'm6.5 4.5 3.5 3.5-3.5 3.5',
  left: 'm9.5 4.5-3.5 3.5 3.5 3.5',
  more: 'M3.5 8h.010M8 8h.010M12.5 8h.01',
  menu: 'M2.5 4.500h11M2.5 8h11M2.5 11.500h11',
  folder: 'M2 4v8.500h12V5.500H8L6.5 4H2Z',
  sun: 'M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM8 1.500v1M8 13.500v1M1.5 8h1M13.5 8h1M3.4 3.400l.7.700M11.9 11.900l.7.700M3.4 12.600l.7-.700M11.9 4.100l.7-.7',
  moon: 'M13.5 9.500A6 6 0 0 1 6.5 2.500a6 6 0 1 0 7 7Z',
  screen: 'M2 3h12v8H2zM6 13.500h4M8 11v2.5',
  upload: 'M8 11V3m0 0L5 6m3-3 3 3M2.5 13.500h11',
  trash: 'M3 4.500h10M6.5 4V2.500h3V4M4.5 4.500l.5 9h6l.5-9',
  refresh: 'M13.5 3v3.500H10M2.5 13V9.500H6M13.2 6.500A5.5 5.5 0 0 0 3.5 5M2.8 9.500a5.5 5.5 0 0 0 9.7 1.5',
  edit: 'M3 13h2.500l7.5-7.500L10.5 3 3 10.500V13Z',
  check: 'm3.5 8.5 3 3 6-7',
  copy: 'M5.5 5.500h8v8h-8zM10.5 5.500v-3h-8v8h3',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth={name === 'more' ? 2.4 : 1.4} strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo() {
  return (
    <svg width="20" height="20" viewBox="0 0 20 20" fill="none" aria-hidden="true">
      <circle cx="7.5" cy="7.5" r="5.5" fill="currentColor" opacity="0.9" />
      <circle cx="12.5" cy="12.5" r="5.5" fill="currentColor" opacity="0.4" />
    </svg>
  );
}
