// Buttons, fields, menus and dialogs: React Aria Components in our clothes.
import { type ReactNode, useState } from 'react';
import {
  Button as AriaButton,
  type ButtonProps as AriaButtonProps,
  Checkbox as AriaCheckbox,
  Dialog as AriaDialog,
  FieldError,
  Heading,
  Input,
  Label,
  ListBox,
  ListBoxItem,
  Menu,
  MenuItem,
  MenuTrigger,
  Modal,
  ModalOverlay,
  Popover,
  SearchField as AriaSearchField,
  Select as AriaSelect,
  SelectValue,
  Text,
  TextArea,
  TextField,
  type Key,
} from 'react-aria-components';

import type { DocumentNode } from 'graphql';

import { useMayDo } from '../api/permissions';
import { Icon, type IconName } from './icons';

export interface ButtonProps extends Omit<AriaButtonProps, 'children' | 'className'> {
  /** The mutations behind it: who may not do them does not see it. */
  does?: DocumentNode[];
  kind?: 'primary' | 'danger' | 'quiet';
  icon?: IconName;
  small?: boolean;
  children?: ReactNode;
}

export function Button({ does, ...rest }: ButtonProps) {
  return does ? <May act={does}><Pressed {...rest} /></May> : <Pressed {...rest} />;
}

/** What only those see who may do some mutations; the others see `otherwise`. */
export function May({ act, otherwise, children }: { act: DocumentNode[]; otherwise?: ReactNode; children: ReactNode }) {
  return <>{useMayDo()(...act) ? children : otherwise}</>;
}

function Pressed({ kind, icon, small, children, ...rest }: Omit<ButtonProps, 'does'>) {
  const classes = ['button', kind, small && 'small', icon && !children && 'icon'].filter(Boolean).join(' ');
  return (
    <AriaButton {...rest} className={classes}>
      {icon && <Icon name={icon} size={small ? 14 : 16} />}
      {children}
    </AriaButton>
  );
}

export interface Action {
  id: string;
  label: string;
  icon?: IconName;
  danger?: boolean;
  disabled?: boolean;
  href?: string;
  act?: () => void;
  /** The mutations behind it: who may not do them does not see it. */
  does?: DocumentNode[];
}

export function ActionMenu({ label, actions: all, button }: { label: string; actions: Action[]; button?: ReactNode }) {
  const mayDo = useMayDo();
  const actions = all.filter(({ does = [] }) => mayDo(...does));
  return (
    <MenuTrigger>
      {button ?? <Button icon="more" kind="quiet" small aria-label={label} />}
      <Popover className="popover" placement="bottom end">
        <Menu aria-label={label} onAction={(key) => actions.find((action) => action.id === key)?.act?.()}>
          {actions.map((action) => (
            <MenuItem
              key={action.id}
              id={action.id}
              textValue={action.label}
              isDisabled={action.disabled}
              href={action.href}
              className={action.danger ? 'option danger' : 'option'}
            >
              {action.icon && <Icon name={action.icon} />}
              {action.label}
            </MenuItem>
          ))}
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}

export function Search(props: { label: string; value: string; onChange: (value: string) => void; placeholder?: string }) {
  return (
    <AriaSearchField
      aria-label={props.label}
      value={props.value}
      onChange={props.onChange}
      // It finds while one types: Enter sends no form around it.
      onSubmit={() => undefined}
      className="search"
    >
      <Icon name="search" />
      <Input placeholder={props.placeholder ?? props.label} />
      <Button kind="quiet" small icon="close" aria-label="Clear" />
    </AriaSearchField>
  );
}

export interface Option {
  id: string;
  label: string;
  detail?: string;
}

interface SelectProps {
  label: string;
  options: Option[];
  value: string | null;
  onChange: (value: string) => void;
  placeholder?: string;
  /** Shows the label above instead of only to screen readers. */
  shown?: boolean;
  hint?: string;
  disabled?: boolean;
}

export function Select({ label, options, value, onChange, placeholder, shown, hint, disabled }: SelectProps) {
  return (
    <AriaSelect
      aria-label={shown ? undefined : label}
      className={shown ? 'field' : undefined}
      value={value}
      onChange={(key: Key | null) => key !== null && onChange(String(key))}
      placeholder={placeholder}
      isDisabled={disabled}
    >
      {shown && <Label>{label}</Label>}
      <AriaButton className="select">
        <SelectValue>
          {({ selectedText, isPlaceholder }) => (isPlaceholder ? (placeholder ?? 'Choose…') : selectedText)}
        </SelectValue>
        <Icon name="down" size={14} />
      </AriaButton>
      {hint && <Text slot="description" className="hint">{hint}</Text>}
      <Popover className="popover">
        <ListBox items={options}>
          {(option) => (
            <ListBoxItem id={option.id} textValue={option.label} className="option">
              {option.label}
              {option.detail && <small>{option.detail}</small>}
            </ListBoxItem>
          )}
        </ListBox>
      </Popover>
    </AriaSelect>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  lines?: number;
  hint?: string;
  problem?: string;
  placeholder?: string;
  required?: boolean;
  autoFocus?: boolean;
  type?: string;
}

export function Field({ label, lines, hint, problem, placeholder, required, ...rest }: FieldProps) {
  return (
    <TextField {...rest} className="field" isInvalid={problem !== undefined} isRequired={required} validationBehavior="aria">
      <Label>{label}</Label>
      {lines ? <TextArea rows={lines} placeholder={placeholder} /> : <Input placeholder={placeholder} />}
      {hint && <Text slot="description" className="hint">{hint}</Text>}
      {problem && <FieldError className="problem">{problem}</FieldError>}
    </TextField>
  );
}

export function Checkbox(props: { children?: ReactNode; isSelected?: boolean; onChange?: (on: boolean) => void; slot?: string; 'aria-label'?: string; isDisabled?: boolean }) {
  const { children, ...rest } = props;
  return (
    <AriaCheckbox {...rest} className="checkbox">
      {({ isSelected, isIndeterminate }) => (
        <>
          <span className="box">
            {isIndeterminate ? <svg width="9" height="9" viewBox="0 0 9 9" aria-hidden="true"><path d="M1 4.5h7" stroke="currentColor" strokeWidth="2" /></svg> : isSelected && <Icon name="check" size={12} />}
          </span>
          {children}
        </>
      )}
    </AriaCheckbox>
  );
}

interface DialogProps {
  title: string;
  open: boolean;
  onClose: () => void;
  children: ReactNode;
  wide?: boolean;
}

export function Dialog({ title, open, onClose, children, wide }: DialogProps) {
  return (
    <ModalOverlay className="overlay" isOpen={open} onOpenChange={(next) => !next && onClose()} isDismissable>
      <Modal>
        <AriaDialog className={wide ? 'dialog wide' : 'dialog'}>
          <Heading slot="title">{title}</Heading>
          {children}
        </AriaDialog>
      </Modal>
    </ModalOverlay>
  );
}

interface FormDialogProps extends DialogProps {
  verb: string;
  act: () => Promise<void>;
  /** Whether the form can be sent. */
  ready?: boolean;
  cancel?: string;
  kind?: 'primary' | 'danger';
}

/** A form that Enter sends, once; what the server refuses is said above the fields. */
export function FormDialog({ verb, act, ready = true, cancel = 'Cancel', kind = 'primary', children, ...dialog }: FormDialogProps) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string>();
  const send = async () => {
    if (busy || !ready) return;
    setBusy(true);
    setProblem(undefined);
    try {
      await act();
    } catch (error) {
      setProblem((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog {...dialog}>
      <form noValidate onSubmit={(event) => { event.preventDefault(); void send(); }}>
        <div className="stack">
          {problem && <div className="note" role="alert">{problem}</div>}
          {children}
        </div>
        <div className="foot">
          <Button onPress={dialog.onClose}>{cancel}</Button>
          <Button type="submit" kind={kind} isDisabled={busy || !ready}>{verb}</Button>
        </div>
      </form>
    </Dialog>
  );
}

/** Asks before something that cannot be undone. */
export function Confirm({ act, onClose, children, ...dialog }: Omit<FormDialogProps, 'ready' | 'cancel' | 'kind'>) {
  return (
    <FormDialog {...dialog} onClose={onClose} kind="danger" cancel="Keep it" act={async () => { await act(); onClose(); }}>
      <div className="muted">{children}</div>
    </FormDialog>
  );
}
