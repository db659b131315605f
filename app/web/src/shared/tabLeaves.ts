// Tab leaves every editor of Monaco, as it leaves any other control: nobody who works by keyboard is caught in one.
import { TabFocus } from 'monaco-editor/esm/vs/editor/browser/config/tabFocus.js';

TabFocus.setTabFocusMode(true);
