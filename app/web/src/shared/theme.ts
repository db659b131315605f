// Light, dark, or as the system says; kept in this browser, for both pages.

export type Theme = 'light' | 'dark' | 'system';

const KEY = 'segmentation:theme';
const listeners = new Set<() => void>();

export function readTheme(): Theme {
  const stored = localStorage.getItem(KEY);
  return stored === 'light' || stored === 'dark' ? stored : 'system';
}

export function applyTheme(): void {
  const theme = readTheme();
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function setTheme(theme: Theme): void {
  if (theme === 'system') localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme);
  applyTheme();
  listeners.forEach((listener) => listener());
}

const system = matchMedia('(prefers-color-scheme: dark)');

/** Whether the page is dark now. */
export function isDark(): boolean {
  const theme = readTheme();
  return theme === 'system' ? system.matches : theme === 'dark';
}

/** Calls `listener` whenever the theme or the system's preference changes, in any tab. */
export function onThemeChange(listener: () => void): () => void {
  const stored = (event: StorageEvent) => {
    if (event.key === KEY) {
      applyTheme();
      listener();
    }
  };
  listeners.add(listener);
  system.addEventListener('change', listener);
  window.addEventListener('storage', stored);
  return () => {
    listeners.delete(listener);
    system.removeEventListener('change', listener);
    window.removeEventListener('storage', stored);
  };
}
